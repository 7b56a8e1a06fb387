// Uses a relay with nostr-tools, which checks ids and signatures of what it gets.
// Prints ok, or ends with an error.
import { finalizeEvent, generateSecretKey, getPublicKey } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'
import { SimplePool, useWebSocketImplementation as usePoolWebSocket } from 'nostr-tools/pool'
import WebSocket from 'ws'

useWebSocketImplementation(WebSocket)
usePoolWebSocket(WebSocket)

const url = process.argv[2]
const secret = generateSecretKey()
const author = getPublicKey(secret)
const now = () => Math.floor(Date.now() / 1000)
const sign = (kind, content, tags = [], created_at = now()) => finalizeEvent({ kind, content, tags, created_at }, secret)

function check(condition, what) {
  if (!condition) throw new Error(what)
}

async function refused(promise, prefix) {
  try {
    await promise
  } catch (err) {
    check(String(err.message ?? err).startsWith(prefix), `refused with ${err}`)
    return
  }
  throw new Error('not refused: ' + prefix)
}

const publisher = await Relay.connect(url)
const subscriber = await Relay.connect(url)

// An ephemeral event reaches its subscriber.
const passing = sign(28333, 'odd "text" \\ \u2028 é 🙂 <&>', [['p', author]])
await refused(publisher.publish(passing), 'mute: ')
const got = new Promise((resolve) => {
  const sub = subscriber.subscribe([{ kinds: [28333], '#p': [author], limit: 0 }], {
    onevent: resolve,
    oneose: () => publisher.publish(passing),
  })
  sub.closing = () => sub.close()
})
check((await got).content === passing.content, 'another text')

// What is kept, replaced, deleted and counted.
await publisher.publish(sign(30001, 'one', [['d', 'x']], now() - 10))
await publisher.publish(sign(30001, 'two', [['d', 'x']], now() - 5))
const note = sign(1, 'note')
await publisher.publish(note)
const pool = new SimplePool()
let kept = await pool.querySync([url], { authors: [author], kinds: [1, 30001] })
check(kept.map((e) => e.content).sort().join() === 'note,two', 'kept: ' + kept.map((e) => e.content))
check((await publisher.count([{ authors: [author] }], {})) === 2, 'count')
await publisher.publish(sign(5, '', [['e', note.id]]))
kept = await pool.querySync([url], { authors: [author], kinds: [1] })
check(kept.length === 0, 'a deleted event is still there')
await refused(publisher.publish(note), 'blocked: ')

// NIP-42, and NIP-70 behind it.
const guarded = sign(1, 'protected', [['-']])
await refused(publisher.publish(guarded), 'auth-required: ')
await publisher.auth(async (template) => finalizeEvent(template, secret))
await publisher.publish(guarded)

pool.close([url])
publisher.close()
subscriber.close()
console.log('ok')
