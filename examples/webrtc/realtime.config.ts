// The rules of calls: whoever has a token may be in a room, and send to single members of it. Nothing is kept: an offer is
// worth nothing a moment later. CONFIG_FILE=examples/webrtc/realtime.config.ts

import { defineConfig } from 'sobranie/config';

export default defineConfig({
  rules: [
    {
      channels: 'call:{room}',
      recoverable: false,
      membersMax: 8,
      allow: { subscribe: 'users', publish: 'users', presence: 'users' },
    },
  ],
});
