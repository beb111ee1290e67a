// Vite serves the page; what is asked of the backend and of the realtime server goes on to server.ts.

import react from '@vitejs/plugin-react';
import { defineConfig } from 'vite';

const { PORT = '3000', PAGE_PORT = '5173' } = process.env;
const target = `http://127.0.0.1:${PORT}`;

export default defineConfig({
  plugins: [react()],
  server: {
    port: Number(PAGE_PORT),
    strictPort: true,
    proxy: { '/api': { target }, '/realtime': { target, ws: true } },
  },
});
