const message = { type: 'gitspace-login' }
// Pages of this origin hear it, whatever became of the way back to the one that opened this window.
new BroadcastChannel('gitspace-login').postMessage(message)
try {
  // Throws for an opener of any other origin. Such a one is not told, and must not see this window close either: that would say who is signed in where.
  if (opener.origin === origin) {
    opener.postMessage(message, origin)
    close()
  }
} catch {}
