// Runs the guide's client and Apollo's against an API for a test, and prints what came of it.
import { readFileSync } from "node:fs";

import { untilAnswered } from "./built/again.js";
import { createApollo } from "./built/apollo.js";
import { claim } from "./built/claim.js";
import { createAsk, FlashError } from "./built/client.js";
import { ClaimDocument, CodesDocument } from "./built/gql/graphql.js";
import { codes } from "./built/pages.js";

const { url, token, pools, empty } = JSON.parse(process.argv[2]);
const ask = createAsk(url, async () => token);
const told = {};

told.claimed = [];
for (const pool of pools) told.claimed.push(await claim(ask, pool));
told.again = await claim(ask, pools[0]);
told.empty = await claim(ask, empty);
told.missing = await claim(ask, "pool_00000000000000000000000000000000");

told.listed = [];
for await (const { text } of codes(ask)) told.listed.push(text);

const stranger = createAsk(url, async () => "nobody");
told.problem = await claim(stranger, pools[0]).catch((problem) => problem);
told.isFlashError = told.problem instanceof FlashError;

let tries = 0;
told.answered = await untilAnswered(async () => {
  tries += 1;
  if (tries < 3) throw new TypeError("fetch failed");
  return claim(ask, pools[0]);
});
told.refusedAtOnce = await untilAnswered(() => claim(stranger, pools[0])).catch(({ code }) => code);
told.tries = tries;

const { possibleTypes } = JSON.parse(readFileSync(new URL("src/gql/possible-types.json", import.meta.url)));
const apollo = createApollo(url, async () => token, possibleTypes);
const refused = await apollo.mutate({ mutation: ClaimDocument, variables: { input: { poolId: empty } } });
told.apolloRefusal = refused.data.claimCode;
const first = await apollo.query({ query: CodesDocument });
const after = first.data.wallet.codes.pageInfo.endCursor;
// What `fetchMore` does in a component.
await apollo.query({ query: CodesDocument, variables: { after }, fetchPolicy: "network-only" });
told.apolloMerged = apollo.readQuery({ query: CodesDocument }).wallet.codes.edges.map(({ node }) => node.text);
console.log(JSON.stringify(told));
