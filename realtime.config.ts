// Which channels keep history and how much, and who may use them. The first rule that matches a channel's name decides.
//
// Rules that do not say who may leave it to the tokens: what the claim `channels` grants. `allow` says more, such as
// `{ channels: 'tenant:{tenant}:*', allow: { subscribe: 'owner', publish: ['owner', 'token'] } }`: docs/access.md tells all.

import { defineConfig } from 'sobranie/config';

export default defineConfig({
  rules: [
    // Typing indicators, cursors: worth nothing a second later, so they are neither numbered nor kept.
    { channels: 'ephemeral:*', recoverable: false },
    // Whichever is less.
    { channels: '*', recoverable: true, history: { size: 1_000, seconds: 3_600 } },
  ],
});
