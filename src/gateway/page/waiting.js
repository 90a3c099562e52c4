// A page that waits: it asks whether the answer is still the same as its own, ever more rarely, and is loaded again when it is not.
const { reason, follows } = document.currentScript.dataset
let wait = 2000
const later = () => setTimeout(ask, wait * (0.75 + Math.random() / 2))
async function ask() {
  try {
    const answer = await fetch(location.href, { method: 'HEAD', cache: 'no-store', redirect: 'manual' })
    const told = answer.headers.get('proxy-status') ?? ''
    if (!told.startsWith('cde-gateway;') || !told.includes(`details="${reason}"`)) return location.reload()
  } catch {
    // The gateway is away: it is asked again as well.
  }
  wait = Math.min(wait * 1.5, 15000)
  later()
}
later()

// What is copied for whoever helps; where the browser does not let it, it is shown and chosen.
for (const button of document.querySelectorAll('[data-copies]')) {
  const text = document.getElementById(button.dataset.copies)
  button.hidden = false
  button.addEventListener('click', async () => {
    try {
      await navigator.clipboard.writeText(text.textContent)
      button.textContent = 'Copied'
    } catch {
      text.parentElement.open = true
      getSelection().selectAllChildren(text)
    }
  })
}

// How a start goes. What is shown comes escaped, and no script could run from it.
if (follows !== undefined) {
  const [says, steps] = ['says', 'steps'].map((id) => document.getElementById(id))
  const source = new EventSource('/_gitspace/wake')
  source.addEventListener('progress', ({ data }) => {
    const told = JSON.parse(data)
    if (says.textContent !== told.says) says.textContent = told.says
    document.title = told.title
    steps.innerHTML = told.html
    show()
  })
  source.addEventListener('reload', () => {
    source.close()
    location.reload()
  })
  const show = () => steps.querySelector('pre')?.scrollTo(0, 1e9)
  show()
  setInterval(() => {
    for (const time of steps.querySelectorAll('[data-seconds]')) {
      const seconds = (time.dataset.seconds = Number(time.dataset.seconds) + 1)
      const span = seconds < 60 ? `${seconds} s` : `${Math.floor(seconds / 60)} min ${seconds % 60} s`
      time.textContent = `for ${span}${time.dataset.then}`
    }
  }, 1000)
}
