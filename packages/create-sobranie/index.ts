// `bun packages/create-sobranie my-app`: what `npm create sobranie my-app` is once it is published.

import './src/main.ts';
