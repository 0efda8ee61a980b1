import { createHash } from "node:crypto";
import type { CodegenConfig } from "@graphql-codegen/cli";

const config: CodegenConfig = {
  schema: "schema.graphql",
  documents: "src/**/*.graphql",
  // Generated files import each other with `.js`, as modules in browsers and Node do.
  importExtension: ".js",
  generates: {
    "src/gql/": {
      preset: "client",
      presetConfig: {
        fragmentMasking: false,
        persistedDocuments: { hashAlgorithm: (text: string) => createHash("sha256").update(text).digest("hex") },
      },
      config: {
        scalars: { BigInt: "number", Date: "string", DateTime: "string", ID: "string" },
        strictScalars: true,
        useTypeImports: true,
      },
    },
    "src/gql/possible-types.json": { plugins: ["fragment-matcher"] },
  },
};

export default config;
