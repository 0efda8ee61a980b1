// The rewards that points can be redeemed for, and the dialog in which that happens.

import { arrange, copyOf } from "./lists.js";
import { number, points } from "./words.js";

const REWARDS = `
query Rewards($after: String) {
  rewards(first: 100, after: $after) { edges { node { id name cost stock } } pageInfo { hasNextPage endCursor } }
}`;
const REDEEM = `
mutation Redeem($input: RedeemRewardInput!) {
  redeemReward(input: $input) {
    __typename
    ... on RedeemRewardSuccess { redemption { code { text } } }
    ... on Refusal { message }
    ... on InsufficientPoints { balance required }
  }
}`;
const UNANSWERED = "No answer came, so you may have it already. Trying again can’t take the points twice.";

export class Rewards {
  #rewards = [];
  #items = new Map();
  #points = 0;
  #reading = null;
  // By reward, the keys of redemptions whose answer never came: trying again is the same redemption.
  #keys = new Map();
  // What the dialog is about, while it is open.
  #asked = null;

  // `ask(document, variables)` returns the data of an answer, and throws when none comes.
  constructor(element, ask) {
    this.element = element;
    this.ask = ask;
    element.rewards.addEventListener("click", ({ target }) => {
      if (target.matches(".redeem")) this.#open(target.closest(".reward").dataset.id);
    });
    element["redeem-confirm"].addEventListener("click", () => this.#redeem());
    element["redeem-close"].addEventListener("click", () => this.close());
    element.redeem.addEventListener("close", () => this.#closed());
  }

  // Reads what is offered and how much of it is left; nothing tells when that changes.
  async read() {
    const reading = Symbol("reading");
    this.#reading = reading;
    const rewards = [];
    let after = null;
    try {
      do {
        const page = (await this.ask(REWARDS, { after })).rewards;
        rewards.push(...page.edges.map(({ node }) => node));
        after = page.pageInfo.hasNextPage ? page.pageInfo.endCursor : null;
      } while (after !== null);
    } catch {
      // What is shown stays, and the connection's state says what is wrong.
      return;
    }
    // A later reading, or another member, has overtaken this one.
    if (reading !== this.#reading) return;
    this.#rewards = rewards.sort((one, other) => one.cost - other.cost || one.name.localeCompare(other.name));
    this.#show();
  }

  // Shows what a balance suffices for.
  update(balance) {
    this.#points = balance;
    this.#show();
  }

  forget() {
    this.close();
    this.#reading = null;
    this.#rewards = [];
    this.#items.clear();
    this.#keys = new Map();
    this.#show();
  }

  close() {
    this.element.redeem.close();
  }

  #show() {
    arrange(this.element.rewards, this.#rewards.map((reward) => this.#itemOf(reward)));
    this.element["rewards-section"].hidden = this.#rewards.length === 0;
    if (this.#asked?.state === "asking") this.#describe();
  }

  #itemOf({ id, name, cost, stock }) {
    if (!this.#items.has(id)) {
      const item = copyOf(this.element["reward-template"]);
      item.dataset.id = id;
      this.#items.set(id, item);
    }
    const item = this.#items.get(id);
    const part = (kind) => item.querySelector(`.${kind}`);
    const isMissing = stock !== 0 && cost > this.#points;
    const facts = [];
    if (stock !== null) facts.push(stock === 0 ? "Out of stock" : `${number(stock)} left`);
    if (isMissing) facts.push(`${points(cost - this.#points)} to go`);
    part("name").textContent = name;
    part("cost").textContent = points(cost);
    part("fine").textContent = facts.join(" · ");
    part("redeem").setAttribute("aria-label", `Redeem ${name}`);
    part("redeem").disabled = !this.#keys.has(id) && (stock === 0 || isMissing);
    return item;
  }

  #open(id) {
    const reward = this.#rewards.find((each) => each.id === id);
    this.#asked = { reward, state: this.#keys.has(id) ? "unanswered" : "asking", sentence: UNANSWERED, text: null };
    this.#describe();
    this.element.redeem.showModal();
  }

  #describe() {
    const { reward, state, sentence, text } = this.#asked;
    const price = `It costs ${points(reward.cost)}. You have ${number(this.#points)}`;
    const left = this.#points - reward.cost;
    const confirm = this.element["redeem-confirm"];
    this.element.redeem.dataset.state = state;
    this.element["redeem-title"].textContent = reward.name;
    this.element["redeem-text"].textContent =
      state !== "asking" ? sentence : left < 0 ? `${price}.` : `${price} and keep ${number(left)}.`;
    this.element["redeem-code"].textContent = text ?? "";
    this.element["redeem-code"].parentElement.hidden = text === null;
    confirm.textContent = state === "unanswered" ? "Try again" : "Redeem";
    confirm.disabled = state === "sending" || (state === "asking" && left < 0);
    confirm.hidden = state === "answered";
    this.element["redeem-close"].textContent = state === "asking" ? "Cancel" : "Close";
  }

  async #redeem() {
    const asked = this.#asked;
    const keys = this.#keys;
    const { id } = asked.reward;
    if (!keys.has(id)) keys.set(id, newKey());
    this.#tell(asked, { state: "sending", sentence: "Redeeming…" });
    try {
      const input = { rewardId: id, idempotencyKey: keys.get(id) };
      const { redeemReward: answer } = await this.ask(REDEEM, { input });
      keys.delete(id);
      this.#tell(asked, { state: "answered", ...told(answer) });
    } catch {
      this.#tell(asked, { state: "unanswered", sentence: UNANSWERED });
    }
    this.#show();
    await this.read();
  }

  // Shows how it goes on, unless the dialog has been closed meanwhile.
  #tell(asked, how) {
    if (this.#asked !== asked) return;
    Object.assign(asked, how);
    this.#describe();
    if (asked.state === "answered") this.element["redeem-close"].focus();
    if (asked.state === "unanswered") this.element["redeem-confirm"].focus();
  }

  #closed() {
    this.#asked = null;
    this.element["redeem-code"].textContent = "";
    // The browser gives the focus back to the button that opened the dialog, unless that can't be pressed any more.
    const { activeElement } = document;
    const isLost = activeElement === document.body || activeElement.disabled || this.element.redeem.contains(activeElement);
    if (isLost) this.element["rewards-title"].focus({ preventScroll: true });
  }
}

// The page may be served over plain HTTP in a local network, where there is no randomUUID.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}

function told({ __typename, redemption, message, balance, required }) {
  switch (__typename) {
    case "RedeemRewardSuccess":
      return redemption.code
        ? { sentence: "It’s yours. Here is your code, which is in your wallet too:", text: redemption.code.text }
        : { sentence: "It’s yours." };
    case "InsufficientPoints":
      return { sentence: `It takes ${points(required)}, and you have ${number(balance)}. No points were taken.` };
    default:
      return { sentence: `${message} No points were taken.` };
  }
}
