import type { Ask } from "./client.js";
import { ClaimDocument } from "./gql/graphql.js";

/** What to show a member that tapped: its code, or why there is none. */
export async function claim(ask: Ask, poolId: string): Promise<string> {
  const { claimCode: answer } = await ask(ClaimDocument, { input: { poolId } });
  switch (answer.__typename) {
    case "ClaimCodeSuccess":
      return `Your code: ${answer.code.text ?? answer.code.masked}`;
    case "PoolExhausted":
      return "All codes are gone.";
    case "PoolNotActive":
      return answer.status === "PAUSED" ? "Back soon." : "This offer is over.";
    case "InvalidInput":
      return answer.problems.map(({ path, message }) => `${path.join(".")} ${message}`).join("; ");
    default:
      // Refusals that this app doesn't know, or that a later release adds, have a sentence too.
      return answer.message;
  }
}
