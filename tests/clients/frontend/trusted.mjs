// Asks an API that executes only documents that it knows, for a test: by a document's hash, and by its text.
import { claim } from "./built/claim.js";
import { createAsk } from "./built/client.js";

const { url, token, pool } = JSON.parse(process.argv[2]);
const byHash = await claim(createAsk(url, async () => token, true), pool);
const byText = await claim(createAsk(url, async () => token), pool).catch(({ code }) => code);
console.log(JSON.stringify({ byHash, byText }));
