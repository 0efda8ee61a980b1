// node codegen.mjs <schema.graphql> <operations.graphql> <folder>: writes types, documents, possible types and a manifest.
import { createHash } from "node:crypto";
import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { codegen } from "@graphql-codegen/core";
import * as fragmentMatcher from "@graphql-codegen/fragment-matcher";
import * as documents from "@graphql-codegen/typed-document-node";
import * as types from "@graphql-codegen/typescript";
import * as operations from "@graphql-codegen/typescript-operations";
import { buildASTSchema, Kind, parse, print } from "graphql";

const [schemaFile, operationsFile, folder] = process.argv.slice(2);
const schema = parse(readFileSync(schemaFile, "utf8"));
const document = parse(readFileSync(operationsFile, "utf8"));
const options = {
  scalars: { BigInt: "number", Date: "string", DateTime: "string" },
  strictScalars: true,
  enumsAsTypes: true,
  // What was asked for is always there, and nothing else is.
  avoidOptionals: { field: true },
  skipTypename: true,
};

async function write(filename, plugins) {
  const text = await codegen({
    filename,
    schema,
    schemaAst: buildASTSchema(schema),
    documents: [{ location: operationsFile, document }],
    config: options,
    pluginMap: plugins,
    plugins: Object.keys(plugins).map((name) => ({ [name]: name === "types" ? { onlyOperationTypes: true } : {} })),
  });
  writeFileSync(join(folder, filename), text);
}

await write("graphql.ts", { types, operations, documents });
await write("possible-types.json", { fragmentMatcher });

// What the client sends, by its hash: FLASH_TRUSTED_DOCUMENTS.
const fragments = document.definitions.filter(({ kind }) => kind === Kind.FRAGMENT_DEFINITION);
const sent = document.definitions
  .filter(({ kind }) => kind === Kind.OPERATION_DEFINITION)
  .map((operation) => print({ kind: Kind.DOCUMENT, definitions: [operation, ...fragments] }));
const manifest = sent.map((text) => [createHash("sha256").update(text).digest("hex"), text]);
writeFileSync(join(folder, "trusted.json"), JSON.stringify(Object.fromEntries(manifest)));
