// Where lesions lie: outlines and pixels of a slice, and the middle of a lesion.

import { outlines } from '/static/outlines.js'

export class Regions {
  // runs: along a row, five numbers each: k, j, first i, count, lesion. width: of the slices.
  constructor (runs, width) {
    Object.assign(this, { runs, width })
    this.drawn = new Map()
    this.inSlice = new Map()
    for (let n = 0; n < runs.length; n += 5) {
      if (!this.inSlice.has(runs[n])) this.inSlice.set(runs[n], [])
      this.inSlice.get(runs[n]).push(n)
    }
  }

  // For each lesion its path, and where to put its number.
  outlines (k) {
    if (!this.drawn.has(k)) this.drawn.set(k, outlines(this.pixels(k), this.width))
    return this.drawn.get(k)
  }

  lesionAt (k, j, i) {
    return this.pixels(k).get(Math.floor(j) * this.width + Math.floor(i))
  }

  pixels (k) {
    const { runs } = this
    const pixels = new Map()
    for (const n of this.inSlice.get(k) || []) {
      for (let i = 0; i < runs[n + 3]; i++) pixels.set(runs[n + 1] * this.width + runs[n + 2] + i, runs[n + 4])
    }
    return pixels
  }

  // The slice in which most of a lesion lies, and the middle of it there.
  placeOf (lesion) {
    const { runs } = this
    const sums = new Map()
    for (let n = 0; n < runs.length; n += 5) {
      if (runs[n + 4] !== lesion) continue
      const sum = sums.get(runs[n]) || [0, 0, 0]
      const count = runs[n + 3]
      sums.set(runs[n], [sum[0] + count, sum[1] + count * (runs[n + 2] + count / 2), sum[2] + count * (runs[n + 1] + 0.5)])
    }
    const [k, [count, i, j]] = [...sums].sort((a, b) => b[1][0] - a[1][0])[0]
    return { k, i: i / count, j: j / count }
  }
}
