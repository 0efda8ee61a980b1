// Audits a server with the suite of GraphQL over HTTP, and prints what each audit found.
import { serverAudits } from "graphql-http";

const { url, key } = JSON.parse(process.argv[2]);
const fetchFn = (address, init = {}) =>
  fetch(address, { ...init, headers: { ...init.headers, authorization: `Bearer ${key}` } });
const found = [];
for (const audit of serverAudits({ url, fetchFn })) {
  const { id, name, status, reason } = await audit.fn();
  found.push({ id, name, status, reason });
}
console.log(JSON.stringify(found));
