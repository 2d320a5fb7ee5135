// What the page tells about its machine: the network is back, somebody looks again, it woke up.
// Outside of a browser nothing is watched.

export interface Watcher {
  /** A good moment to try, and to doubt what was open before. */
  wake(): void;
  /** The network is said to be gone. */
  doubt(): void;
  /** The page may be gone any moment. */
  leave(): void;
}

/** Hidden for longer than this: the connection may be dead. */
const LONG_HIDDEN = 20_000;
/** A tick that comes this late means that the machine slept. */
const TICK = 5_000;
const SLEPT = 15_000;

export function watchEnvironment(watcher: Watcher): () => void {
  if (typeof window === "undefined" || typeof document === "undefined") return () => {};
  let hiddenAt = document.visibilityState === "hidden" ? Date.now() : 0;
  let tickAt = Date.now();

  const onVisibility = () => {
    if (document.visibilityState === "hidden") {
      hiddenAt = Date.now();
      watcher.leave();
    } else {
      if (hiddenAt && Date.now() - hiddenAt >= LONG_HIDDEN) watcher.wake();
      hiddenAt = 0;
      tickAt = Date.now();
    }
  };
  const onPageShow = (event: PageTransitionEvent) => {
    if (event.persisted) watcher.wake();
  };
  const onTick = () => {
    const late = Date.now() - tickAt - TICK;
    tickAt = Date.now();
    // Timers of hidden pages are late as a rule: that says nothing.
    if (late >= SLEPT && document.visibilityState === "visible") watcher.wake();
  };
  const onOnline = () => watcher.wake();
  const onOffline = () => watcher.doubt();
  const onLeave = () => watcher.leave();

  const timer = setInterval(onTick, TICK);
  document.addEventListener("visibilitychange", onVisibility);
  document.addEventListener("resume", onOnline);
  window.addEventListener("pageshow", onPageShow);
  window.addEventListener("pagehide", onLeave);
  window.addEventListener("online", onOnline);
  window.addEventListener("offline", onOffline);
  return () => {
    clearInterval(timer);
    document.removeEventListener("visibilitychange", onVisibility);
    document.removeEventListener("resume", onOnline);
    window.removeEventListener("pageshow", onPageShow);
    window.removeEventListener("pagehide", onLeave);
    window.removeEventListener("online", onOnline);
    window.removeEventListener("offline", onOffline);
  };
}
