// What comes from the server: the first answer by fetch, then one stream for all tabs of this browser.
const CHANNEL = "actorpool-dashboard";
const RETRY = [1000, 2000, 4000, 8000, 15000];
const STALE = 5000;
const KINDS = ["state", "tree", "samples", "gap", "down"];

// `show(kind, data)` gets every message; `tell(live, since)` whether the figures are of now.
export function follow(show, tell) {
  let heard = 0, last = null, source = null, tries = 0, timer = 0, release = null, abort = null, polling = 0;
  const others = "BroadcastChannel" in window ? new BroadcastChannel(CHANNEL) : null;

  function got(kind, data, number) {
    if (kind === "down") return;
    heard = Date.now();
    if (number !== undefined && number !== null) {
      if (last !== null && number <= last) return; // seen by another way already
      last = number;
    }
    tell(true, 0);
    show(kind, data);
  }

  async function load() {
    const [pools, tree] = await Promise.all(["/api/pools", "/api/tree"].map(ask));
    got("samples", pools.samples);
    got("state", pools);
    got("tree", tree);
  }

  function open() {
    source = new EventSource(`/api/events?state=1&after=${last ?? 0}`);
    const pass = (kind, event) => {
      tries = 0;
      const number = event.lastEventId && kind === "event" ? Number(event.lastEventId) : null;
      const data = JSON.parse(event.data);
      got(kind, data, number);
      others?.postMessage({ kind, data, number });
    };
    source.onmessage = (event) => pass("event", event);
    for (const kind of KINDS) source.addEventListener(kind, (event) => pass(kind, event));
    source.onerror = () => {
      source.close(); // its own way to try again ends for ever at some answers
      timer = setTimeout(open, RETRY[Math.min(tries++, RETRY.length - 1)]);
      if (tries > 3 && !polling) polling = setInterval(() => load().catch(() => {}), 2000);
    };
    source.onopen = () => { clearInterval(polling); polling = 0; };
  }

  function close() {
    clearTimeout(timer);
    clearInterval(polling);
    polling = 0;
    source?.close();
    source = null;
    release?.();
    release = null;
    abort?.abort();
    abort = null;
  }

  function start() {
    load().catch(() => {});
    if (!navigator.locks || !others) return open();
    abort = new AbortController();
    navigator.locks.request(CHANNEL, { signal: abort.signal }, () => {
      open();
      return new Promise((done) => { release = done; });
    }).catch(() => {}); // another tab had it until this one was hidden
  }

  if (others) others.onmessage = ({ data }) => { if (!document.hidden) got(data.kind, data.data, data.number); };
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : start()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => { if (event.persisted) start(); });
  setInterval(() => { if (!document.hidden && Date.now() - heard > STALE) tell(false, heard); }, 1000);
  start();
}

export async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw new Error(`${path}: ${answer.status}`);
  return answer.json();
}
