// The offers that the shop lists for its members, and what stands in the way of those that can't be had.

import { arrange, copyOf } from "./lists.js";
import { days, valueOf } from "./words.js";

const OFFERS = `
query Offers($after: String) {
  offers(first: 100, after: $after) {
    edges {
      node {
        claimable whyNot code { id }
        pool { id name kind percentOff amountOff { amountMinor currency } giftSku startsAt endsAt }
      }
    }
    pageInfo { hasNextPage endCursor }
  }
}`;
const CLAIM = `
mutation Claim($input: ClaimCodeInput!) {
  claimCode(input: $input) { __typename ... on Refusal { message } }
}`;
const UNANSWERED = "No answer came. Trying again gives you the same code.";
const WHY_NOT = {
  HAS_ALL: "In your wallet",
  AUDIENCE: "For other customers",
  MAILBOX: "Somebody with your mailbox has it",
  BUDGET_SPENT: "All given away",
  EXHAUSTED: "All given away",
};

export class Offers {
  #offers = [];
  #items = new Map();
  #told = new Map();
  #reading = null;

  // `ask(document, variables)` returns the data of an answer, and throws when none comes.
  constructor(element, ask) {
    this.element = element;
    this.ask = ask;
    element.offers.addEventListener("click", ({ target }) => {
      if (target.matches(".claim")) this.#claim(target.closest(".offer").dataset.id);
    });
  }

  // Reads what is listed, and whether the member can have it; nothing tells when that changes.
  async read() {
    const reading = Symbol("reading");
    this.#reading = reading;
    const offers = [];
    let after = null;
    try {
      do {
        const page = (await this.ask(OFFERS, { after })).offers;
        offers.push(...page.edges.map(({ node }) => node));
        after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
      } while (after !== null);
    } catch {
      // What is shown stays, and the connection's state says what is wrong.
      return;
    }
    // A later reading, or another member, has overtaken this one.
    if (reading !== this.#reading) return;
    this.#offers = offers;
    this.#show();
  }

  forget() {
    this.#reading = null;
    this.#offers = [];
    this.#items.clear();
    this.#told.clear();
    this.#show();
  }

  #show() {
    arrange(this.element.offers, this.#offers.map((offer) => this.#itemOf(offer)));
    this.element["offers-section"].hidden = this.#offers.length === 0;
  }

  #itemOf({ pool, claimable, whyNot }) {
    if (!this.#items.has(pool.id)) {
      const item = copyOf(this.element["offer-template"]);
      item.dataset.id = pool.id;
      this.#items.set(pool.id, item);
    }
    const item = this.#items.get(pool.id);
    const part = (kind) => item.querySelector(`.${kind}`);
    part("name").textContent = pool.name;
    part("worth").textContent = valueOf(pool);
    part("fine").textContent = this.#told.get(pool.id) ?? factsOf(pool, whyNot);
    part("claim").setAttribute("aria-label", `Claim ${pool.name}`);
    part("claim").disabled = !claimable;
    return item;
  }

  async #claim(id) {
    let told = null;
    try {
      const { claimCode: answer } = await this.ask(CLAIM, { input: { poolId: id } });
      if (answer.__typename !== "ClaimCodeSuccess") told = answer.message;
    } catch {
      told = UNANSWERED;
    }
    if (told === null) this.#told.delete(id);
    else this.#told.set(id, told);
    this.#show();
    await this.read();
  }
}

function factsOf({ startsAt, endsAt }, whyNot) {
  if (whyNot === "NOT_OPEN") {
    const begins = startsAt && new Date(startsAt) > new Date();
    return begins ? `From ${days.format(new Date(startsAt))}` : "Not now";
  }
  if (whyNot) return WHY_NOT[whyNot];
  return endsAt ? `Until ${days.format(new Date(endsAt))}` : "";
}
