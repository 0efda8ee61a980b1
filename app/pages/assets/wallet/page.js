// The wallet page: who it is opened for, what it shows, and what happens when the token ends.

import { Live, TokenError } from "./live.js";

const KEPT = "flash.member-token";
const VERBS = {
  "code.claimed": "Claimed",
  "code.redeemed": "Used",
  "code.expired": "Expired",
  "code.revoked": "Taken back",
  "redemption.reversed": "Given back",
};
const ENDS = { EXPIRED: "Expired", REVOKED: "Taken back" };

const language = document.documentElement.lang;
const days = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
const minutes = new Intl.DateTimeFormat(language, { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" });
const seconds = new Intl.DateTimeFormat(language, { timeStyle: "medium" });
const shares = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 4 });

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
const items = new Map();
const shown = new Set();
let live = null;
let subject = null;

function money({ amountMinor, currency }) {
  const format = new Intl.NumberFormat(language, { style: "currency", currency, trailingZeroDisplay: "stripIfInteger" });
  return format.format(amountMinor / 10 ** digitsOf(currency));
}

function digitsOf(currency) {
  return new Intl.NumberFormat(language, { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
}

function valueOf({ kind, percentOff, amountOff }) {
  if (kind === "PERCENT") return `${shares.format(percentOff / 100)} off`;
  return kind === "AMOUNT" ? `${money(amountOff)} off` : "A gift";
}

function termsOf({ state, redeemedAt, expiresAt, pool }) {
  if (state === "REDEEMED") return `Used on ${minutes.format(new Date(redeemedAt))}`;
  if (state in ENDS) return ENDS[state];
  const terms = [];
  if (pool.kind === "GIFT") terms.push(pool.giftSku);
  if (pool.minimumSpend) terms.push(`On orders from ${money(pool.minimumSpend)}`);
  if (expiresAt) terms.push(`Until ${days.format(new Date(expiresAt))}`);
  return terms.join(" · ");
}

function setTime(time, date, format) {
  time.dateTime = date.toISOString();
  time.textContent = format.format(date);
}

function isReady(code) {
  return code.state === "ALLOCATED";
}

function itemOf(code) {
  if (!items.has(code.id)) {
    const item = element["code-template"].content.firstElementChild.cloneNode(true);
    item.dataset.id = code.id;
    items.set(code.id, item);
  }
  const item = items.get(code.id);
  const part = (name) => item.querySelector(`.${name}`);
  const isShown = shown.has(code.id) && isReady(code) && code.text !== null;
  item.dataset.state = code.state;
  part("value").textContent = valueOf(code.pool);
  part("pool").textContent = code.pool.name;
  part("fine").textContent = termsOf(code);
  part("text").firstElementChild.textContent = isShown ? code.text : code.masked;
  part("show").textContent = isShown ? "Hide" : "Show";
  part("show").setAttribute("aria-label", `${part("show").textContent} the code of ${code.pool.name}`);
  part("show").hidden = !isReady(code) || code.text === null;
  return item;
}

function list(name, codes) {
  element[`${name}-count`].textContent = codes.length;
  const wanted = new Set(codes.map(itemOf));
  for (const item of [...element[name].children]) {
    if (!wanted.has(item)) item.remove();
  }
  // Moving an item would take the focus off it, so what is in place stays.
  let there = element[name].firstElementChild;
  for (const item of wanted) {
    if (item === there) there = there.nextElementSibling;
    else element[name].insertBefore(item, there);
  }
}

function show(wallet) {
  const codes = wallet.newestFirst;
  element.merchant.textContent = wallet.merchant;
  element.member.textContent = wallet.member ? `${wallet.member}’s wallet` : "Your wallet";
  element.version.textContent = wallet.version;
  list("ready", codes.filter(isReady));
  list("past", codes.filter((code) => !isReady(code)));
  element["ready-empty"].hidden = codes.some(isReady);
  element["past-section"].hidden = codes.every(isReady);
  element.older.hidden = wallet.olderAfter === null;
  element.wallet.hidden = false;
}

function log({ version, event, code }) {
  const item = element["change-template"].content.firstElementChild.cloneNode(true);
  item.dataset.version = version;
  item.querySelector(".what").textContent = [VERBS[event.type] ?? event.type, code?.pool.name].filter(Boolean).join(": ");
  item.querySelector(".number").textContent = [`Version ${version}`, code?.masked].filter(Boolean).join(" · ");
  setTime(item.querySelector("time"), new Date(event.occurredAt), seconds);
  element.changes.prepend(item);
  element["changes-empty"].hidden = true;
}

function mark(item) {
  item.classList.remove("changed");
  // Asking for the size makes the browser forget the animation that has run.
  void item.offsetWidth;
  item.classList.add("changed");
}

function onState(state) {
  const words = { connecting: "Connecting", live: "Live", offline: "Offline" };
  element.connection.dataset.state = state.is;
  element.connection.hidden = false;
  if (element["connection-state"].textContent !== words[state.is]) {
    element["connection-state"].textContent = words[state.is];
  }
  // Read aloud once, not every second.
  element["connection-wait"].textContent = state.is === "offline" ? `, reconnecting in ${state.seconds} s` : "";
  element.retry.hidden = state.is !== "offline";
}

function onRead(wallet) {
  show(wallet);
  // Where the form was left the focus is nowhere.
  if (document.activeElement === document.body) element.member.focus({ preventScroll: true });
}

function onChange(change, wallet) {
  show(wallet);
  log(change);
  if (change.code) mark(items.get(change.code.id));
}

// Returns whose a token is and until when, as it says itself: to be shown, not to be trusted.
function claimsOf(token) {
  try {
    return JSON.parse(atob(token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/")));
  } catch {
    return {};
  }
}

function forget() {
  items.clear();
  shown.clear();
  for (const name of ["ready", "past", "changes"]) element[name].replaceChildren();
  element["changes-empty"].hidden = false;
  element.wallet.hidden = true;
}

// Opens the wallet of a token's member; with another token of the same member it goes on from where it was.
async function open(token) {
  const { sub, exp } = claimsOf(token);
  const isSame = sub !== undefined && sub === subject;
  const wallet = isSame ? live.wallet : null;
  live?.stop();
  if (!isSame) forget();
  subject = sub;
  element.door.hidden = true;
  element.until.parentElement.hidden = exp === undefined;
  if (exp !== undefined) setTime(element.until, new Date(exp * 1000), minutes);
  const opened = new Live(token, wallet, { onState, onRead, onChange });
  live = opened;
  try {
    await opened.run();
  } catch (problem) {
    if (!(problem instanceof TokenError)) throw problem;
    close(problem.message);
  }
}

// Asks for a token. What is shown stays, as of its version.
function close(sentence) {
  sessionStorage.removeItem(KEPT);
  live?.stop();
  element.connection.hidden = true;
  element.notice.textContent = element.wallet.hidden ? sentence : `${sentence} What is shown is version ${element.version.textContent}.`;
  element.notice.hidden = !sentence;
  element.door.hidden = false;
  element.token.value = "";
  element.token.focus();
}

function keep(token) {
  sessionStorage.setItem(KEPT, token);
  open(token);
}

// A token in the address's fragment never reaches the server, and is taken out of the history here.
function openFromAddress() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (token) {
    history.replaceState(null, "", location.pathname);
    keep(token);
  }
  return Boolean(token);
}

element.form.addEventListener("submit", (event) => {
  event.preventDefault();
  keep(element.token.value.trim());
});
element.leave.addEventListener("click", () => {
  live.stop();
  subject = null;
  forget();
  close("");
});
element.retry.addEventListener("click", () => live.retry());
element.older.addEventListener("click", async () => {
  element.older.disabled = true;
  try {
    await live.readOlder();
    show(live.wallet);
  } catch {
    // The connection's state says what is wrong, and the button stays.
  } finally {
    element.older.disabled = false;
  }
});
document.addEventListener("click", ({ target }) => {
  if (!target.matches(".show")) return;
  const { id } = target.closest(".code").dataset;
  if (!shown.delete(id)) shown.add(id);
  itemOf(live.wallet.codes.get(id));
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState === "visible") live?.retry();
});
addEventListener("hashchange", openFromAddress);

const kept = sessionStorage.getItem(KEPT);
if (!openFromAddress()) {
  if (kept) open(kept);
  else close("");
}
