// The wallet page: who it is opened for, what it shows, and what happens when the token ends.

import { arrange, copyOf } from "./lists.js";
import { Live, TokenError } from "./live.js";
import { Offers } from "./offers.js";
import { Rewards } from "./rewards.js";
import { amountOf, changeOf, minutes, points, reasonOf, seconds, setTime, termsOf, valueOf } from "./words.js";

const KEPT = "flash.member-token";
const CHANGES_MAX = 200;

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
const items = new Map();
const shown = new Set();
let live = null;
let subject = null;
const rewards = new Rewards(element, (query, variables) => live.ask(query, variables));
const offers = new Offers(element, (query, variables) => live.ask(query, variables));

function isReady(code) {
  return code.state === "ALLOCATED";
}

function itemOf(code) {
  if (!items.has(code.id)) {
    const item = copyOf(element["code-template"]);
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

function entryOf(entry) {
  if (!items.has(entry.id)) {
    const item = copyOf(element["entry-template"]);
    item.dataset.sign = Math.sign(entry.amount);
    item.querySelector(".amount").textContent = amountOf(entry);
    item.querySelector(".reason").textContent = reasonOf(entry);
    setTime(item.querySelector("time"), new Date(entry.createdAt), minutes);
    items.set(entry.id, item);
  }
  return items.get(entry.id);
}

function list(name, codes) {
  element[`${name}-count`].textContent = codes.length;
  arrange(element[name], codes.map(itemOf));
}

function show(wallet) {
  const codes = wallet.newestCodes;
  element.merchant.textContent = wallet.merchant;
  element.member.textContent = wallet.member ? `${wallet.member}’s wallet` : "Your wallet";
  element.version.textContent = wallet.version;
  // Read aloud when it changes, and only then.
  if (element.balance.textContent !== points(wallet.points)) element.balance.textContent = points(wallet.points);
  arrange(element.entries, wallet.newestEntries.map(entryOf));
  element["entries-empty"].hidden = wallet.entries.size > 0;
  element.earlier.hidden = wallet.entriesAfter === null;
  rewards.update(wallet.spendable);
  list("ready", codes.filter(isReady));
  list("past", codes.filter((code) => !isReady(code)));
  element["ready-empty"].hidden = codes.some(isReady);
  element["past-section"].hidden = codes.every(isReady);
  element.older.hidden = wallet.codesAfter === null;
  element.wallet.hidden = false;
}

function log(change) {
  const { version, event, code } = change;
  const item = copyOf(element["change-template"]);
  item.dataset.version = version;
  item.querySelector(".what").textContent = changeOf(change);
  item.querySelector(".number").textContent = [`Version ${version}`, code?.masked].filter(Boolean).join(" · ");
  setTime(item.querySelector("time"), new Date(event.occurredAt), seconds);
  element.changes.prepend(item);
  while (element.changes.children.length > CHANGES_MAX) element.changes.lastElementChild.remove();
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
  const when = state.seconds ? ` in ${state.seconds} s` : "";
  element["connection-wait"].textContent = state.is === "offline" ? `, reconnecting${when}` : "";
  element.retry.hidden = state.is !== "offline";
  // Of rewards and offers nothing is told, so what may have changed meanwhile is read.
  if (state.is !== "live") return;
  rewards.read();
  offers.read();
}

function onRead(wallet) {
  show(wallet);
  // Where the form was left the focus is nowhere.
  if (document.activeElement === document.body) element.member.focus({ preventScroll: true });
}

function onChange(change, wallet) {
  show(wallet);
  log(change);
  for (const node of [change.code, change.entry]) {
    if (node) mark(items.get(node.id));
  }
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
  rewards.forget();
  offers.forget();
  for (const name of ["ready", "past", "entries", "changes"]) element[name].replaceChildren();
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
  element.rewards.inert = false;
  element.offers.inert = false;
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
  rewards.close();
  element.rewards.inert = true;
  element.offers.inert = true;
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
for (const [name, read] of [["older", "readOlderCodes"], ["earlier", "readOlderEntries"]]) {
  element[name].addEventListener("click", async () => {
    element[name].disabled = true;
    try {
      await live[read]();
      show(live.wallet);
    } catch {
      // The connection's state says what is wrong, and the button stays.
    } finally {
      element[name].disabled = false;
    }
  });
}
document.addEventListener("click", ({ target }) => {
  if (!target.matches(".show")) return;
  const { id } = target.closest(".code").dataset;
  if (!shown.delete(id)) shown.add(id);
  itemOf(live.wallet.codes.get(id));
});
document.addEventListener("visibilitychange", () => {
  if (document.visibilityState !== "visible" || !live) return;
  live.retry();
  rewards.read();
  offers.read();
});
addEventListener("hashchange", openFromAddress);

const kept = sessionStorage.getItem(KEPT);
if (!openFromAddress()) {
  if (kept) open(kept);
  else close("");
}
