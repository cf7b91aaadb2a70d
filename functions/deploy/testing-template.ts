/** The template of a predict Service for tests: an image, and what every version is told of itself. */
export const testTemplate = `
apiVersion: serving.knative.dev/v1
kind: Service
metadata: { name: predict }
spec:
  template:
    spec:
      containers:
        - image: dev.local/dandelion-predict:test
          env:
            - { name: MODEL_NAME, value: "\${MODEL_NAME}" }
            - { name: MODEL_VERSION, value: "\${MODEL_VERSION}" }
`;
