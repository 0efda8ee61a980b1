import type { TypedDocumentNode } from "@graphql-typed-document-node/core";
import { print } from "graphql";

/** Nothing was answered: `code` says why, `requestId` finds it in the server's log. */
export class FlashError extends Error {
  constructor(readonly code: string, message: string, readonly requestId: string | null) {
    super(message);
  }
}

export type Ask = <Data, Variables>(document: TypedDocumentNode<Data, Variables>, variables: Variables) => Promise<Data>;

/**
 * `credential` returns a member's token in an app, and a key only on a server. With `isTrusted` documents are sent by
 * the hash that codegen gave them; the server must know them.
 */
export function createAsk(url: string, credential: () => Promise<string>, isTrusted = false): Ask {
  return async (document, variables) => {
    const sha256Hash = (document as { __meta__?: { hash: string } }).__meta__?.hash;
    const asked = isTrusted ? { extensions: { persistedQuery: { version: 1, sha256Hash } } } : { query: print(document) };
    const response = await fetch(url, {
      method: "POST",
      headers: {
        accept: "application/graphql-response+json",
        authorization: `Bearer ${await credential()}`,
        "content-type": "application/json",
      },
      body: JSON.stringify({ ...asked, variables }),
      signal: AbortSignal.timeout(15_000),
    });
    const { data, errors } = await response.json();
    if (errors) {
      throw new FlashError(errors[0].extensions.code, errors[0].message, response.headers.get("x-request-id"));
    }
    return data;
  };
}
