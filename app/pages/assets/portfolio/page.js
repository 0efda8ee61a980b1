// The portfolio page: pools as bubbles, what the advisor suggests as cards, and what a person makes of a suggestion.

import { createClient } from "../graphql-ws/client.js";

const KEPT = "flash.portfolio-key";
const MONEY = "{ amountMinor currency }";
const JOB = "id status done total problem";
const RUN = `
  id status source model fallbackReason problem
  suggestions {
    id title rationale segment audience pool { id name status stock { available } }
    draft {
      name kind percentOff amountOff ${MONEY} giftSku minimumSpend ${MONEY} maximumDiscount ${MONEY} claimsPerMember
      audience
    }
    figures { name proposed checked cap basis }
  }
  rejected { title message }
`;
const PORTFOLIO = `portfolio {
  generatedAt status problem
  pools {
    pool { id name status stock { redeemed } } claimRate redemptionRate redemptionShare redemptionGrowth
    marginImpact ${MONEY} quadrant
  }
  segments { name memberCount redemptionRate spend ${MONEY} }
}`;
const READ = `{
  viewer { role merchant { name currency } }
  ${PORTFOLIO}
  latestAdviceRun { ${RUN} }
  campaigns(first: 100) { edges { node { allocatedCount pool { id } job { ${JOB} } } } }
}`;
const ASK = `mutation { askAdvisor { ... on AskAdvisorSuccess { run { ${RUN} } } } }`;
const FOLLOW = `subscription ($id: ID!) { adviceRunChanged(id: $id) { ${RUN} } }`;
const CREATE = `mutation ($input: CreatePoolInput!) {
  createPool(input: $input) { __typename ... on CreatePoolSuccess { pool { name } } ... on Refusal { message } }
}`;
const FILL = `mutation ($input: FillPoolInput!) {
  answer: fillPool(input: $input) { __typename ... on FillPoolSuccess { job { ${JOB} } } ... on Refusal { message } }
}`;
const ACTIVATE = `mutation ($input: PoolIdInput!) {
  answer: activatePool(input: $input) { __typename ... on ChangePoolStatusSuccess { pool { id } } ... on Refusal { message } }
}`;
const SEND = `mutation ($input: CreateCampaignInput!) {
  answer: createCampaign(input: $input) {
    __typename ... on CreateCampaignSuccess { campaign { id } } ... on Refusal { message }
  }
}`;
const WATCH = `query ($id: ID!) { node(id: $id) { ... on BulkJob { ${JOB} } } }`;
const FIGURES = {
  percentOff: "Percent off", amountOff: "Amount off", minimumSpend: "Minimum spend", maximumDiscount: "Maximum discount",
  claimsPerMember: "Codes per member", audience: "Members", redemptionRate: "Redeemed", marginImpact: "Margin impact",
};
const AMOUNTS = new Set(["amountOff", "minimumSpend", "maximumDiscount", "marginImpact"]);
const QUADRANTS = { STAR: "Star", CASH_COW: "Cash cow", QUESTION_MARK: "Question mark", DOG: "Dog" };
const ENDED = new Set(["DONE", "FAILED", "CANCELLED"]);
const WAITING = { QUEUED: "The advisor has been asked …", RUNNING: "The advisor looks at your figures …" };
// The chart's frame, as the page has it, and where share 0.5 and growth 10 % divide it.
const FRAME = { left: 44, middle: 332, right: 624, top: 16, half: 200, bottom: 384 };
const BUBBLES_LABELLED = 8;
// How often figures that a worker computes are looked for.
const LOOK_MILLISECONDS = 15000;

const element = Object.fromEntries([...document.querySelectorAll("[id]")].map((each) => [each.id, each]));
const fields = element.create.elements;
let key = new URLSearchParams(location.hash.slice(1)).get("key") ?? sessionStorage.getItem(KEPT);
let currency = "USD";
let following = null;
let isAdmin = false;
let campaigns = new Map();
let looking = null;
// The jobs that this tab looks at until they have ended, and where each is told of.
const watched = new Map();

async function ask(query, variables = {}) {
  // A header couldn't carry it.
  if (!/^[!-~]+$/.test(key)) throw new Error("This is no key.");
  const response = await fetch("/graphql", {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${key}` },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  if (errors) throw Object.assign(new Error(errors[0].message), { code: errors[0].extensions?.code });
  return data;
}

const decimals = () => new Intl.NumberFormat("en", { style: "currency", currency }).resolvedOptions().maximumFractionDigits;
const money = (minor) => new Intl.NumberFormat("en", { style: "currency", currency }).format(minor / 10 ** decimals());
const percent = (share) => `${(100 * share).toLocaleString("en", { maximumFractionDigits: 1 })} %`;
const number = (value) => value.toLocaleString("en", { maximumFractionDigits: 2 });
const growth = (value) => (value === null ? "–" : `${value > 0 ? "+" : ""}${percent(value)}`);
const copyOf = (template) => template.content.firstElementChild.cloneNode(true);

function cells(row, ...texts) {
  for (const text of texts) row.insertCell().textContent = text;
  return row;
}

// Where a pool is drawn: its share from left to right, its growth upwards, on both sides of what divides them.
function place({ redemptionShare: share, redemptionGrowth, quadrant }) {
  const isHigh = quadrant === "STAR" || quadrant === "QUESTION_MARK";
  const rise = redemptionGrowth ?? (isHigh ? 1 : 0);
  const part = isHigh ? Math.min(1, (rise - 0.1) / 1.4) : Math.max(0, (rise + 1) / 1.1);
  const x = share < 0.5 ? FRAME.left + 24 + (share / 0.5) * (FRAME.middle - FRAME.left - 28)
    : FRAME.middle + 4 + ((share - 0.5) / 0.5) * (FRAME.right - FRAME.middle - 44);
  const y = isHigh ? FRAME.half - 12 - part * (FRAME.half - FRAME.top - 54) : FRAME.bottom - 26 - part * (FRAME.bottom - FRAME.half - 44);
  return { x, y };
}

function showPools(pools) {
  const most = Math.max(1, ...pools.map(({ pool }) => pool.stock.redeemed));
  const source = element["bubble-source"].firstElementChild;
  const taken = new Map();
  const drawn = pools.map((each, rank) => {
    const bubble = source.cloneNode(true);
    const at = place(each);
    const y = at.y;
    let x = at.x;
    // Pools that stand in one place are drawn beside each other, and the first one is named.
    const spot = `${Math.round(x / 8)} ${Math.round(y / 8)}`;
    const beside = taken.get(spot) ?? 0;
    taken.set(spot, beside + 1);
    x = Math.min(FRAME.right - 8, x + 14 * beside);
    const radius = 5 + 19 * Math.sqrt(each.pool.stock.redeemed / most);
    const [title, circle, label] = bubble.children;
    bubble.dataset.quadrant = each.quadrant;
    title.textContent = `${each.pool.name}: ${QUADRANTS[each.quadrant].toLowerCase()}, share ${percent(each.redemptionShare)}, ` +
      `growth ${growth(each.redemptionGrowth)}, ${number(each.pool.stock.redeemed)} redeemed`;
    for (const [name, value] of Object.entries({ cx: x, cy: y, r: radius })) circle.setAttribute(name, value.toFixed(1));
    label.setAttribute("x", Math.min(FRAME.right - 60, Math.max(FRAME.left + 60, x)).toFixed(1));
    label.setAttribute("y", (y - radius - 5).toFixed(1));
    label.textContent = rank < BUBBLES_LABELLED && beside === 0 ? shortened(each.pool.name) : "";
    return bubble;
  });
  // The largest first, so that small ones lie on top.
  element.bubbles.replaceChildren(...drawn);
  element["pools-empty"].hidden = pools.length > 0;
  element.pools.replaceChildren(...pools.map((each) => {
    const row = document.createElement("tr");
    const { pool, claimRate, redemptionRate, redemptionGrowth, marginImpact, quadrant } = each;
    return cells(row, pool.name, pool.status.toLowerCase(), percent(claimRate), percent(redemptionRate),
      growth(redemptionGrowth), money(marginImpact.amountMinor), QUADRANTS[quadrant]);
  }));
}

const shortened = (name) => (name.length > 22 ? `${name.slice(0, 21)}…` : name);

function showSegments(segments) {
  element.segments.replaceChildren(...segments.map(({ name, memberCount, redemptionRate, spend }) => {
    const item = copyOf(element["segment-template"]);
    item.children[0].textContent = name;
    item.children[1].textContent = `${number(memberCount)} ${memberCount === 1 ? "member" : "members"}`;
    item.children[2].textContent = `${percent(redemptionRate)} of codes redeemed · ${money(spend.amountMinor)} in a year`;
    return item;
  }));
}

function figureOf(name, value) {
  if (value === null) return "–";
  if (AMOUNTS.has(name)) return money(value);
  if (name === "redemptionRate") return percent(value);
  return name === "percentOff" ? `${number(value)} %` : number(value);
}

function cardOf(suggestion) {
  const card = copyOf(element["card-template"]);
  card.querySelector(".eyebrow").textContent = `For: ${suggestion.segment}`;
  card.querySelector("h3").textContent = suggestion.title;
  card.querySelector(".why").textContent = suggestion.rationale;
  const rows = suggestion.figures.map(({ name, proposed, checked, cap, basis }) => {
    const row = document.createElement("tr");
    row.title = basis;
    row.className = proposed === checked ? "" : "corrected";
    return cells(row, FIGURES[name] ?? name, figureOf(name, proposed), figureOf(name, checked), figureOf(name, cap));
  });
  card.querySelector("tbody").append(...rows);
  showStep(card, suggestion);
  return card;
}

const fillOf = (pool) => `flash.fill.${pool.id}`;
const members = (count) => `${number(count)} ${count === 1 ? "member" : "members"}`;

// What a suggestion has come to, and the one step that comes next: adopt, fill, activate, send.
function stepOf(suggestion) {
  const { id, title, segment, audience, pool, figures, draft } = suggestion;
  if (pool === null) return { label: "Adopt…", act: () => openForm(suggestion) };
  const campaign = campaigns.get(pool.id);
  if (campaign) {
    const { job, allocatedCount } = campaign;
    if (job && !ENDED.has(job.status)) return { said: "Sending", job };
    return { said: `Sent to ${members(allocatedCount)}.${job?.problem ? ` ${job.problem}` : ""}` };
  }
  const filling = sessionStorage.getItem(fillOf(pool));
  if (filling) return { said: "Making codes", job: { id: filling }, ended: () => sessionStorage.removeItem(fillOf(pool)) };
  if (pool.status === "DRAFT" && pool.stock.available === 0) {
    const people = figures.find(({ name }) => name === "audience")?.checked ?? 0;
    return {
      said: `“${pool.name}” is a draft without codes.`,
      label: "Make codes",
      codes: Math.max(1, people * draft.claimsPerMember),
      act: async (available) => {
        const input = { poolId: pool.id, available, idempotencyKey: `${id} ${available}` };
        sessionStorage.setItem(fillOf(pool), (await succeed(FILL, input)).job.id);
      },
    };
  }
  if (pool.status === "DRAFT") {
    return {
      said: `“${pool.name}” is a draft with ${number(pool.stock.available)} codes.`,
      label: "Activate",
      act: () => succeed(ACTIVATE, { poolId: pool.id }),
    };
  }
  if (pool.status === "ACTIVE" && audience !== null) {
    return {
      said: `“${pool.name}” is active.`,
      label: `Send to: ${segment}`,
      // The same key again is the same campaign: nobody gets a second code because an answer was lost.
      act: () => succeed(SEND, { name: title, poolId: pool.id, segment: audience, idempotencyKey: `${id} sent` }),
    };
  }
  return { said: `“${pool.name}” is ${pool.status.toLowerCase()}.` };
}

function showStep(card, suggestion) {
  const { said = "", label, codes, act, job, ended } = stepOf(suggestion);
  const form = card.querySelector("form");
  const [told, problem] = [card.querySelector(".told"), card.querySelector(".notice")];
  told.textContent = said;
  form.hidden = act === undefined || !isAdmin;
  form.querySelector("button").textContent = label ?? "";
  form.elements.codes.parentElement.hidden = form.elements.codes.disabled = codes === undefined;
  form.elements.codes.value = codes ?? "";
  if (job) watch(job.id, (text) => { told.textContent = `${said}: ${text}`; }, ended);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    problem.hidden = true;
    form.querySelector("button").disabled = true;
    try {
      await act(Number(form.elements.codes.value));
      if (suggestion.pool) await load();
    } catch (error) {
      problem.textContent = error.message;
      problem.hidden = false;
    }
    form.querySelector("button").disabled = false;
  });
}

// Sends a mutation and returns what came of it; a refusal is thrown, in the engine's words.
async function succeed(document, input) {
  const { answer } = await ask(document, { input });
  if (!answer.__typename.endsWith("Success")) throw new Error(answer.message);
  return answer;
}

// Tells how far a job is until it has ended, and reads everything again then.
async function watch(id, tell, ended = () => {}) {
  const isWatched = watched.has(id);
  watched.set(id, tell);
  if (isWatched) return;
  let job = null;
  do {
    try {
      job = (await ask(WATCH, { id })).node;
    } catch (error) {
      watched.get(id)(error.message);
    }
    if (job) watched.get(id)(`${number(job.done)} of ${number(job.total)}${job.problem ? ` · ${job.problem}` : ""}`);
    if (!job || !ENDED.has(job.status)) await new Promise((resolve) => setTimeout(resolve, 500));
  } while (!job || !ENDED.has(job.status));
  watched.delete(id);
  ended();
  await load();
  if (job.status !== "DONE") element.status.textContent = job.problem ?? `The job is ${job.status.toLowerCase()}.`;
}

function showRun(run) {
  const isLive = run !== null && run.status in WAITING;
  element.ask.disabled = isLive;
  element.status.textContent = isLive ? WAITING[run.status] : run?.status === "FAILED" ? `The last run failed. ${run.problem}` : "";
  if (run === null || isLive) return isLive && follow(run.id);
  element.source.textContent = run.source === "LLM" ? `Proposed by ${run.model}, checked by the engine.`
    : run.fallbackReason ? `Proposed by the engine's rules: ${run.fallbackReason}` : "";
  element.suggestions.replaceChildren(...run.suggestions.map(cardOf));
  element["suggestions-empty"].hidden = run.suggestions.length > 0;
  element.rejected.hidden = run.rejected.length === 0;
  element["rejected-count"].textContent = `${run.rejected.length} dropped by the checks`;
  element.rejections.replaceChildren(...run.rejected.map(({ title, message }) => {
    const item = document.createElement("li");
    item.textContent = `${title}: ${message}`;
    return item;
  }));
  document.body.dataset.run = run.id;
}

// Follows a run until it has ended; when the socket is cut, what stands is read again.
function follow(id) {
  if (following) return;
  following = createClient({
    url: `${location.origin.replace(/^http/, "ws")}/graphql`,
    connectionParams: { authorization: `Bearer ${key}` },
    retryAttempts: 20,
  });
  const done = () => {
    following?.dispose();
    following = null;
  };
  following.subscribe({ query: FOLLOW, variables: { id } }, {
    next: ({ data }) => data && showRun(data.adviceRunChanged),
    error: () => {
      done();
      element.status.textContent = "The connection is gone; load the page again.";
    },
    complete: done,
  });
}

function showKind() {
  for (const label of element.create.querySelectorAll("[data-kind]")) {
    label.hidden = label.dataset.kind !== fields.kind.value;
    label.querySelector("input").disabled = label.hidden;
  }
}

function openForm({ id, draft, segment }) {
  element.create.dataset.suggestion = id;
  const shown = (amount) => (amount ? amount.amountMinor / 10 ** decimals() : "");
  fields.name.value = draft.name;
  fields.kind.value = draft.kind;
  fields.percentOff.value = draft.percentOff ?? "";
  fields.amountOff.value = shown(draft.amountOff);
  fields.giftSku.value = draft.giftSku ?? "";
  fields.minimumSpend.value = shown(draft.minimumSpend);
  fields.maximumDiscount.value = shown(draft.maximumDiscount);
  fields.claimsPerMember.value = draft.claimsPerMember;
  fields.audience.value = draft.audience[0] ?? "";
  fields.audience.checked = draft.audience.length > 0;
  fields.audience.parentElement.hidden = draft.audience.length === 0;
  element["audience-name"].textContent = segment;
  element.problem.hidden = true;
  showKind();
  element.adopt.showModal();
}

function inputOfForm() {
  const input = {
    suggestionId: element.create.dataset.suggestion, name: fields.name.value, kind: fields.kind.value,
    claimsPerMember: Number(fields.claimsPerMember.value),
  };
  for (const name of ["amountOff", "minimumSpend", "maximumDiscount"]) {
    if (fields[name].disabled || fields[name].value === "") continue;
    input[name] = { amountMinor: Math.round(Number(fields[name].value) * 10 ** decimals()), currency };
  }
  if (input.kind === "PERCENT") input.percentOff = Number(fields.percentOff.value);
  if (fields.audience.checked) input.audience = [fields.audience.value];
  if (input.kind === "GIFT") input.giftSku = fields.giftSku.value;
  return input;
}

async function create(event) {
  event.preventDefault();
  let answer;
  try {
    answer = (await ask(CREATE, { input: inputOfForm() })).createPool;
  } catch (error) {
    answer = { message: error.message };
  }
  if (answer.__typename !== "CreatePoolSuccess") {
    element.problem.textContent = answer.message;
    element.problem.hidden = false;
    return;
  }
  element.adopt.close();
  await load();
  element.status.textContent = `“${answer.pool.name}” is a draft now: make its codes, then activate it.`;
}

// Figures are as of now, or as a worker computed them last.
function showFigures({ pools, segments, generatedAt, status, problem }) {
  showPools(pools);
  showSegments(segments);
  const at = new Date(generatedAt).toLocaleString("en", { dateStyle: "medium", timeStyle: "short" });
  const next = status === "RUNNING" ? " Newer figures are being computed."
    : status === "FAILED" ? ` Newer figures couldn't be computed. ${problem}` : "";
  element.age.textContent = `Figures of ${at}.${next}`;
  document.body.dataset.pools = pools.length;
  if (status === "RUNNING") later(lookForFigures);
}

function later(look) {
  clearTimeout(looking);
  looking = setTimeout(look, LOOK_MILLISECONDS);
}

async function lookForFigures() {
  try {
    showFigures((await ask(`{ ${PORTFOLIO} }`)).portfolio);
  } catch {
    later(lookForFigures);
  }
}

async function load() {
  let found;
  try {
    found = await ask(READ);
  } catch (error) {
    if (error.code !== "TIMEOUT") return openDoor(error.message);
    element.door.hidden = true;
    element.status.textContent = error.message;
    return later(load);
  }
  sessionStorage.setItem(KEPT, key);
  history.replaceState(null, "", location.pathname);
  currency = found.viewer.merchant.currency;
  element.merchant.textContent = found.viewer.merchant.name;
  isAdmin = found.viewer.role === "ADMIN";
  campaigns = new Map(found.campaigns.edges.map(({ node }) => [node.pool.id, node]));
  element.ask.hidden = !isAdmin;
  element.door.hidden = true;
  element.board.hidden = false;
  showRun(found.latestAdviceRun);
  showFigures(found.portfolio);
}

function openDoor(why) {
  sessionStorage.removeItem(KEPT);
  element.notice.textContent = why ?? "";
  element.notice.hidden = !why;
  element.board.hidden = true;
  element.ask.hidden = true;
  element.door.hidden = false;
  element.key.focus();
}

element.enter.addEventListener("submit", (event) => {
  event.preventDefault();
  key = element.key.value.trim();
  load();
});
element.ask.addEventListener("click", async () => {
  element.ask.disabled = true;
  try {
    showRun((await ask(ASK)).askAdvisor.run);
  } catch (error) {
    element.ask.disabled = false;
    element.status.textContent = error.message;
  }
});
element.create.addEventListener("submit", create);
fields.kind.addEventListener("change", showKind);
element.cancel.addEventListener("click", () => element.adopt.close());
if (key) load();
else openDoor();
