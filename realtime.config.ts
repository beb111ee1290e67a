// Which channels keep history, and how much. The first rule that matches a channel's name decides.

import { defineConfig } from './src/core/rules.ts';

export default defineConfig({
  rules: [
    // Typing indicators, cursors: worth nothing a second later, so they are neither numbered nor kept.
    { channels: 'ephemeral:*', recoverable: false },
    // Whichever is less.
    { channels: '*', recoverable: true, history: { size: 1_000, seconds: 3_600 } },
  ],
});
