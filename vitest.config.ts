import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['{shared,functions,knative}/**/*.test.ts'],
    globalSetup: ['shared/local/testing.ts'],
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
