// A worker elsewhere: `API_KEY=dla_… node remote_worker.mjs https://documents.example.com count` does the jobs of the
// processor `count`. The key needs the scope `worker`, and Node.js 20 is enough.

import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'

// The work itself: put yours here. Once `signal` is aborted, nothing of what it makes is used.
async function work(content, params, signal) {
  await sleep(1000 * Number(process.env.WORK_SECONDS ?? 0), null, { signal })
  return { count: params.of === 'bytes' ? content.length : content.filter((byte) => byte === 10).length }
}

// POST what is said as JSON, or GET. The same again after no answer, 429 or 5xx: it is done once all the same.
async function call(url, headers, said) {
  if (!/^https?:/.test(url)) throw new Error(url)
  const body = said && JSON.stringify(said)
  for (;;) {
    let pause = 1
    try {
      const signal = AbortSignal.timeout(60_000)
      const asked = { method: body ? 'POST' : 'GET', headers: { 'Content-Type': 'application/json', ...headers } }
      const answer = await fetch(url, { ...asked, body, signal, redirect: 'manual' }) // the key stays here
      const content = Buffer.from(await answer.arrayBuffer())
      if (answer.status < 500 && answer.status !== 429) return [answer.status, content]
      pause = Number(answer.headers.get('Retry-After') ?? 1) || 1 // a proxy's may be a date
    } catch {
      console.log('nobody answers', url)
    }
    await sleep(1000 * pause)
  }
}

// Send heartbeats until the job is done. Once it is lost or cancelled, `stop` is aborted.
async function keep(job, here, headers, stop) {
  for (;;) {
    await sleep((1000 * job.lease_seconds) / 3, null, { signal: stop.signal })
    const [status, said] = await call(`${here}/heartbeat`, headers, { progress: 0 })
    if (status !== 200 || JSON.parse(said).cancelled) return stop.abort()
  }
}

// Do a job, and return what became of it.
async function perform(job, here) {
  const headers = { Authorization: `Bearer ${job.token}` }
  const [source, stop] = [job.inputs[0], new AbortController()]
  keep(job, here, headers, stop).catch(() => {})
  let [how, said] = ['fail', { code: 'worker-error', detail: 'It did not work this time.', transient: true }]
  try {
    const [, content] = await call(source.url, source.headers)
    if (createHash('sha256').update(content).digest('hex') === source.sha256)
      [how, said] = ['complete', { data: await work(content, job.params, stop.signal) }]
  } catch (error) {
    console.log(job.job_id, String(error))
  }
  let [status, answer] = stop.signal.aborted ? [409, 'lost'] : await call(`${here}/${how}`, headers, said)
  if ([404, 413, 422].includes(status)) {
    // It is refused, and the job still held.
    const { code, detail } = JSON.parse(answer)
    answer = (await call(`${here}/fail`, headers, { code, detail, transient: status === 404 }))[1]
  }
  stop.abort()
  return String(answer)
}

const [, , url, processor] = process.argv
if (!processor || !process.env.API_KEY) {
  console.error('usage: API_KEY=dla_… node remote_worker.mjs URL PROCESSOR')
  process.exit(1)
}
const api = `${url.replace(/\/$/, '')}/remote`
const key = { Authorization: `Bearer ${process.env.API_KEY}` }
for (;;) {
  const [status, said] = await call(`${api}/${processor}/claim`, key, { worker: `example-${process.pid}`, wait: 20 })
  if (status !== 200 && status !== 204) throw new Error(`${status} ${said}`)
  if (status === 200) {
    const job = JSON.parse(said)
    console.log(job.job_id, await perform(job, `${api}/jobs/${job.job_id}`))
  }
}
