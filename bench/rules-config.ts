// Twenty rules, nearly all with captures, of which the last ones match what the bench publishes to.
import { defineConfig, type RuleConfig } from '../src/rules/config.ts';

const others = Array.from({ length: 18 }, (_, index): RuleConfig => ({
  channels: `app${index}:{tenant}:{sub}`,
  allow: { subscribe: ['owner', 'token'], publish: 'owner' },
}));

export default defineConfig({
  rules: [
    ...others,
    {
      channels: 'asked:{tenant}:{sub}',
      recoverable: false,
      authorize: ({ user, captures }) => user === captures['sub'],
    },
    { channels: 'bench:{tenant}:{sub}', recoverable: false, allow: { subscribe: 'owner', publish: 'owner' } },
  ],
});
