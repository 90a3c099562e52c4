import { svelte } from '@sveltejs/vite-plugin-svelte'
import { defineConfig } from 'vite'

// Where `npm run dev` finds a terminal server: TERMINAL=http://127.0.0.1:PORT npm run dev
const terminal = process.env.TERMINAL ?? 'http://127.0.0.1:7681'

export default defineConfig({
  plugins: [svelte()],
  // Paths stay relative, so that the page works below any path.
  base: './',
  build: {
    target: 'es2022',
    // The content policy allows no inline script; files are files.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { '/ws': { target: terminal, ws: true }, '/session.json': terminal } },
})
