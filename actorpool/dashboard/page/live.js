// What comes from the server: the first answer by fetch, then one stream for all tabs of this browser.
const CHANNEL = "actorpool-dashboard";
const RETRY = [1000, 2000, 4000, 8000, 15000];
const STALE = 5000;
const KINDS = ["state", "tree", "samples", "gap", "down"];
const KEPT = 1000;

// `show(kind, data)` gets every message; `tell(live, since)` whether the figures are of now.
export function follow(show, tell) {
  let heard = 0,
    last = null,
    root = null,
    source = null,
    tries = 0,
    timer = 0,
    release = null,
    abort = null,
    polling = 0;
  let history = []; // for tabs that come later: they have no stream of their own
  const others = "BroadcastChannel" in window ? new BroadcastChannel(CHANNEL) : null;

  function got(kind, data, number) {
    if (kind === "down") return show(kind, data);
    heard = Date.now();
    tell(true, 0);
    if (kind === "tree") begun(data);
    if (kind === "event") {
      if (last !== null && number <= last) return; // seen by another way already
      last = number;
      history.push(data);
      history.splice(0, history.length - KEPT);
    }
    show(kind, data);
  }

  // Another node under the same address counts its events from the beginning.
  function begun(tree) {
    const other = root !== null && root !== tree.pid;
    root = tree.pid;
    if (!other) return;
    last = null;
    history = [];
    show("anew");
    if (source) {
      source.close();
      open();
    }
  }

  async function load() {
    const [pools, tree] = await Promise.all(["/api/pools", "/api/tree"].map(ask));
    got("tree", tree);
    got("samples", pools.samples);
    got("state", pools);
  }

  function open() {
    source = new EventSource(`/api/events?state=1&after=${last ?? 0}`);
    const pass = (kind, event) => {
      tries = 0;
      const number = kind === "event" ? Number(event.lastEventId) : null;
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
    source.onopen = () => {
      clearInterval(polling);
      polling = 0;
    };
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
    others.postMessage({ kind: "ask" });
    abort = new AbortController();
    navigator.locks
      .request(CHANNEL, { signal: abort.signal }, () => {
        open();
        return new Promise((done) => {
          release = done;
        });
      })
      .catch(() => {}); // another tab had it until this one was hidden
  }

  function overheard({ data: { kind, data, number } }) {
    if (kind === "ask") {
      if (source) others.postMessage({ kind: "history", data: history });
    } else if (document.hidden) return;
    else if (kind === "history") for (const event of data) got("event", event, event.number);
    else got(kind, data, number);
  }

  if (others) others.onmessage = overheard;
  document.addEventListener("visibilitychange", () => (document.hidden ? close() : start()));
  addEventListener("pagehide", close);
  addEventListener("pageshow", (event) => {
    if (event.persisted) start();
  });
  setInterval(() => {
    if (!document.hidden && Date.now() - heard > STALE) tell(false, heard);
  }, 1000);
  start();
}

export async function ask(path) {
  const answer = await fetch(path);
  if (!answer.ok) throw Object.assign(new Error(`${path}: ${answer.status}`), { status: answer.status });
  return answer.json();
}
