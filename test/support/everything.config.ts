// Rules under which every user may do everything.

import { defineConfig } from 'sobranie/config';

export default defineConfig({
  rules: [{ channels: '*', allow: { subscribe: 'users', publish: 'users', history: 'users', presence: 'users' } }],
});
