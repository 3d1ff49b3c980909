// An origin on Node's http server, for the outer ring of tests.
//
// It prints "listening ADDRESS", and "left PATH" for each request whose client
// went away before it was complete. It ends when its standard input does.
import { createHash } from 'node:crypto'
import { createReadStream, statSync } from 'node:fs'
import http from 'node:http'
import { join } from 'node:path'

const root = process.argv[2]
let count = 0 // of requests below /digest/ and /v1/
let stream // the response to the last GET /events

const say = line => process.stdout.write(line + '\n')
const sha256 = (...parts) => parts.reduce((h, p) => h.update(p), createHash('sha256')).digest('hex')

async function readBody(req) {
  const hash = createHash('sha256')
  let length = 0
  for await (const piece of req) {
    length += piece.length
    hash.update(piece)
  }
  return { length, sha256: hash.digest('hex') }
}

function sendJSON(res, value) {
  const text = JSON.stringify(value)
  res.writeHead(200, { 'Content-Type': 'application/json', 'Content-Length': Buffer.byteLength(text) })
  res.end(text)
}

function sendFile(req, res, name, sized) {
  let size
  try {
    size = statSync(join(root, 'file', name)).size
  } catch {
    res.writeHead(404)
    return res.end('no such file\n')
  }
  res.writeHead(200, sized ? { 'Content-Length': size } : {})
  if (req.method === 'HEAD') return res.end()
  createReadStream(join(root, 'file', name)).pipe(res)
}

async function upload(req, res) {
  const chunked = req.headers['transfer-encoding'] === 'chunked'
  const { length, sha256 } = await readBody(req)
  sendJSON(res, { method: req.method, length, sha256, chunked, expect: req.headers.expect ?? '', trailers: req.trailers })
}

// What is derived from a request's path and body, so that a response that
// belongs to another request is found out.
async function digest(req, res, path) {
  const { sha256: body } = await readBody(req)
  count++
  const text = sha256(`${req.method} ${path} ${body}`)
  res.setHeader('X-Path', path)
  if (path.endsWith('/chunked')) {
    res.write(text.slice(0, 10))
    return res.end(text.slice(10))
  }
  res.end(text)
}

function hints(res) {
  res.writeEarlyHints({ link: '</style.css>; rel=preload; as=style' })
  res.writeEarlyHints({ link: '</script.js>; rel=preload; as=script', 'x-second': 'yes' })
  res.end('after two hints')
}

function trailers(res) {
  res.writeHead(200, { Trailer: 'X-Sum, X-Late' })
  res.write('a body ')
  res.addTrailers({ 'X-Sum': sha256('a body and its end'), 'X-Late': 'yes' })
  res.end('and its end')
}

// /events is a stream of server-sent events; POST /event?TEXT sends one.
function events(res) {
  res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' })
  res.flushHeaders()
  stream = res
  say('has /events')
}

function event(res, url) {
  stream.write(`data: ${url.search.slice(1)}\n\n`)
  res.end()
}

// Sends as fast as the other side takes it, without end.
function endless(res) {
  const piece = Buffer.alloc(65536, 'x')
  const more = () => {
    while (!res.destroyed && res.write(piece));
  }
  res.on('drain', more)
  more()
}

function watch(req, res, url) {
  let said = false
  const left = () => {
    if (!said && !res.writableFinished) say('left ' + url.pathname + url.search)
    said = true
  }
  res.on('close', left)
  req.on('error', left)
}

function handle(req, res) {
  const url = new URL(req.url, 'http://x')
  const path = url.pathname
  watch(req, res, url)
  if (path.startsWith('/file/')) return sendFile(req, res, path.slice(6), true)
  if (path.startsWith('/stream/')) return sendFile(req, res, path.slice(8), false)
  if (path.startsWith('/digest/') || path.startsWith('/v1/')) return digest(req, res, path)
  switch (path) {
    case '/upload':
      return upload(req, res).catch(() => {})
    case '/headers':
      return sendJSON(res, { version: req.httpVersion, url: req.url, raw: req.rawHeaders })
    case '/hints':
      return hints(res)
    case '/trailers':
      return trailers(res)
    case '/redirect':
      // After the body: curl before version 8 takes the RST_STREAM(NO_ERROR) behind an
      // early answer for a failure.
      req.resume()
      return req.on('end', () => {
        res.writeHead(307, { Location: '/upload' })
        res.end()
      })
    case '/events':
      return events(res)
    case '/event':
      return event(res, url)
    case '/endless':
      return endless(res)
    case '/silent':
      res.writeHead(200)
      return res.flushHeaders()
    case '/never':
      say('has ' + path)
      return
    case '/count':
      return res.end(String(count))
  }
  res.writeHead(404)
  res.end('nothing here\n')
}

const server = http.createServer(handle)
server.on('checkContinue', (req, res) => {
  if (req.url === '/refuse') {
    res.writeHead(413, { Connection: 'close' })
    return res.end('too much\n')
  }
  res.writeContinue()
  handle(req, res)
})
server.on('upgrade', (req, socket) => socket.end('HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'))
server.listen(0, '127.0.0.1', () => say(`listening 127.0.0.1:${server.address().port}`))
process.stdin.on('end', () => process.exit(0)).resume()
