// How the page tells dates, amounts and reasons in words.

const language = document.documentElement.lang;
const numbers = new Intl.NumberFormat(language);
const signed = new Intl.NumberFormat(language, { signDisplay: "exceptZero" });
const shares = new Intl.NumberFormat(language, { style: "percent", maximumFractionDigits: 4 });

export const days = new Intl.DateTimeFormat(language, { dateStyle: "medium" });
export const minutes = new Intl.DateTimeFormat(language, {
  month: "short", day: "numeric", hour: "numeric", minute: "2-digit",
});
export const seconds = new Intl.DateTimeFormat(language, { timeStyle: "medium" });

const VERBS = {
  "code.adopted": "Received",
  "code.adopted_after_end": "Received",
  "code.claimed": "Claimed",
  "code.discarded": "Withdrawn",
  "code.expired": "Expired",
  "code.imported": "Received",
  "code.redeemed": "Used",
  "code.reissued": "Replaced",
  "code.revived": "Valid again",
  "code.revoked": "Taken back",
  "code.sent": "Received",
  "redemption.reversed": "Given back",
};
const ENDS = { EXPIRED: "Expired", REVOKED: "Taken back" };
const REASONS = {
  ADJUSTMENT: "By the shop",
  EXPIRY: "Expired",
  REFUND: "Came back",
  PAYMENT: "Paid for an order",
  PURCHASE: "Purchase",
  REFERRAL_REFEREE: "You came by an invite",
  REFERRAL_REFERRER: "Your invite brought someone",
  REVERSAL: "Returned purchase",
  REWARD: "Reward",
};
// The references of the others are ids, which say nothing to a reader.
const TOLD = new Set(["ADJUSTMENT", "PAYMENT", "PURCHASE", "REFUND", "REWARD"]);
const ENDINGS = {
  "points.fell_short": "lacking after a return",
  "points.matured": "can be spent now",
  "points.shortfall_lowered": "no longer lacking",
};

function money({ amountMinor, currency }) {
  const format = new Intl.NumberFormat(language, { style: "currency", currency, trailingZeroDisplay: "stripIfInteger" });
  return format.format(amountMinor / 10 ** digitsOf(currency));
}

function digitsOf(currency) {
  return new Intl.NumberFormat(language, { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
}

function unit(number) {
  return Math.abs(number) === 1 ? "point" : "points";
}

export function number(value) {
  return numbers.format(value);
}

export function points(value) {
  return `${numbers.format(value)} ${unit(value)}`;
}

// An amount that came or went, with its sign.
export function amountOf({ amount }) {
  return `${signed.format(amount)} ${unit(amount)}`;
}

export function reasonOf({ reason, reference }) {
  const words = REASONS[reason] ?? reason;
  return TOLD.has(reason) && reference ? `${words}: ${reference}` : words;
}

export function valueOf({ kind, percentOff, amountOff }) {
  if (kind === "PERCENT") return `${shares.format(percentOff / 100)} off`;
  return kind === "AMOUNT" ? `${money(amountOff)} off` : "A gift";
}

export function termsOf({ state, redeemedAt, expiresAt, pool }) {
  if (state === "REDEEMED") return `Used on ${minutes.format(new Date(redeemedAt))}`;
  if (state in ENDS) return ENDS[state];
  const terms = [];
  if (pool.kind === "GIFT") terms.push(pool.giftSku);
  if (pool.minimumSpend) terms.push(`On orders from ${money(pool.minimumSpend)}`);
  if (expiresAt) terms.push(`Until ${days.format(new Date(expiresAt))}`);
  return terms.join(" · ");
}

export function changeOf({ event, code, entry }) {
  if (entry) return `${amountOf(entry)} · ${reasonOf(entry)}`;
  if (event.type in ENDINGS) return `${points(event.points)} · ${ENDINGS[event.type]}`;
  return [VERBS[event.type] ?? event.type, code?.pool.name].filter(Boolean).join(": ");
}

export function setTime(time, date, format) {
  time.dateTime = date.toISOString();
  time.textContent = format.format(date);
}
