// Slices of images: fetched once each, those that come next before they are asked for.

import { bytes } from '/static/common.js'

const MOST_KEPT = 400
const AHEAD = 6
const AT_ONCE = 3

export class Slices {
  constructor (base, count, failed) {
    this.base = base
    this.count = count
    this.failed = failed
    this.kept = new Map()
    this.waiting = []
    this.running = 0
  }

  get (image, k) {
    return this.kept.get(`${image}/${k}`)
  }

  // Calls done when the slice is there; the latest that was asked for comes first.
  want (image, k, step, done) {
    this.waiting = this.waiting.filter(job => job.done)
    this.ask(image, k, done, true)
    for (let n = 1; n <= AHEAD; n++) this.ask(image, k + n * (step || 1), null, false)
    if (!step) for (let n = 1; n <= 2; n++) this.ask(image, k - n, null, false)
  }

  ask (image, k, done, first) {
    const key = `${image}/${k}`
    if (k < 0 || k >= this.count || (this.kept.has(key) && !done)) return
    if (this.kept.has(key)) return done()
    const job = { key, labels: image === 'heart' || image === 'territories', done }
    first ? this.waiting.unshift(job) : this.waiting.push(job)
    this.pump()
  }

  async pump () {
    if (this.running >= AT_ONCE || !this.waiting.length) return
    const job = this.waiting.shift()
    this.running++
    try {
      if (!this.kept.has(job.key)) {
        const content = await bytes(`${this.base}/slice/${job.key}`)
        this.kept.set(job.key, job.labels ? new Uint8Array(content) : new Int16Array(content))
        if (this.kept.size > MOST_KEPT) this.kept.delete(this.kept.keys().next().value)
      }
      if (job.done) job.done()
    } catch (error) {
      if (job.done) this.failed(error)
    }
    this.running--
    this.pump()
  }
}
