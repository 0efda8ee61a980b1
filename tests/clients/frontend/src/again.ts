import { FlashError } from "./client.js";

/** Ask until there is an answer. Only for what is the same when it is asked twice. */
export async function untilAnswered<Answer>(attempt: () => Promise<Answer>, triesMax = 6): Promise<Answer> {
  for (let tries = 1; ; tries += 1) {
    try {
      return await attempt();
    } catch (problem) {
      // A network that failed says nothing about what the server did; UNAVAILABLE and TIMEOUT say that it may not have.
      const isWorthAnother = !(problem instanceof FlashError) || ["UNAVAILABLE", "TIMEOUT"].includes(problem.code);
      if (!isWorthAnother || tries === triesMax) throw problem;
      await new Promise((resolve) => setTimeout(resolve, 200 * 2 ** tries * (0.5 + Math.random())));
    }
  }
}
