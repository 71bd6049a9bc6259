// How long a reader was at work: idle time counts up to a minute, hidden pages not at all.

const MOST_IDLE_SECONDS = 60

let spent = 0
let lastActive = performance.now()

export function active () {
  const now = performance.now()
  if (document.visibilityState === 'visible') spent += Math.min((now - lastActive) / 1000, MOST_IDLE_SECONDS)
  lastActive = now
}

export function takeSeconds () {
  active()
  const seconds = spent
  spent = 0
  return seconds
}

// What was taken but did not arrive.
export function giveBack (seconds) {
  spent += seconds
}
