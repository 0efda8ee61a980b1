import type { Ask } from "./client.js";
import { CodesDocument, type CodeOfMemberFragment, type CodesQuery } from "./gql/graphql.js";

/** All codes of the member, page by page. */
export async function* codes(ask: Ask): AsyncGenerator<CodeOfMemberFragment> {
  let after: string | null = null;
  do {
    const page: CodesQuery = await ask(CodesDocument, { after });
    // An API key has no wallet.
    if (page.wallet === null) return;
    const { edges, pageInfo } = page.wallet.codes;
    for (const { node } of edges) yield node;
    after = pageInfo.hasNextPage ? pageInfo.endCursor : null;
  } while (after !== null);
}
