// The connection to the server: events while there is one, and why there is none while there is not.

const SILENCE_MS = 8000; // the server sends something every five seconds at least
const PATIENCE_MS = 4000; // a connection that is away for less is being renewed, not lost
const RETRY_MS = 2000;
const EVENTS = "/dashboard/events";

/**
 * Follow the events until the page is left.
 * @param {{history: (points: Array) => void, overview: (overview: object) => void, state: (name: string) => void}} tell
 *   `state` is one of loading, live, retrying, disconnected, crowded, paused.
 */
export function follow(tell) {
  let source = null, timer = 0, silence = 0, awaySince = 0, seen = false, paused = false;

  function open() {
    source = new EventSource(EVENTS);
    source.addEventListener("history", (event) => { listen(); tell.history(JSON.parse(event.data)); });
    source.addEventListener("overview", (event) => {
      listen();
      seen = true;
      awaySince = 0;
      tell.state("live");
      tell.overview(JSON.parse(event.data));
    });
    source.onerror = lose;
    listen();
  }

  function listen() {
    clearTimeout(silence);
    silence = setTimeout(lose, SILENCE_MS);
  }

  function close() {
    clearTimeout(silence);
    clearTimeout(timer);
    if (source) source.close();
    source = null;
  }

  function lose() {
    close();
    if (paused) return;
    awaySince = awaySince || Date.now();
    sayAway();
    timer = setTimeout(again, RETRY_MS / 4);
  }

  function sayAway() {
    const long = Date.now() - awaySince >= PATIENCE_MS;
    tell.state(long ? "disconnected" : seen ? "retrying" : "loading");
  }

  // An event source does not say why it failed; a request for the same without its body does.
  async function again() {
    let status = 0;
    try {
      const answer = await fetch(EVENTS, { method: "HEAD", cache: "no-store", signal: AbortSignal.timeout(RETRY_MS * 2) });
      status = answer.status;
    } catch { /* nobody answers */ }
    if (paused) return;
    if (status === 200) return open();
    if (status === 401) return location.reload();
    if (status === 503) tell.state("crowded");
    else sayAway();
    timer = setTimeout(again, RETRY_MS);
  }

  open();
  return {
    pause() { paused = true; close(); tell.state("paused"); },
    resume() { paused = false; awaySince = 0; tell.state(seen ? "retrying" : "loading"); open(); },
  };
}
