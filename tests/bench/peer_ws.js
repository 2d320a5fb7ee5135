// peer_ws.js: the usual gateway in Node: ws, ioredis, jsonwebtoken. What `make bench` compares with.
//
// usage: node peer_ws.js PORT REDIS-SOCKET SECRET-FILE
'use strict';

const fs = require('fs');
const { WebSocketServer } = require('ws');
const Redis = require('ioredis');
const jwt = require('jsonwebtoken');

const [port, redisSocket, secretFile] = process.argv.slice(2);
const secret = fs.readFileSync(secretFile, 'utf8').trim();
const subscriber = new Redis(redisSocket);
const devices = new Map(); // channel -> set of sockets
const everybody = new Set();

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(port),
  backlog: 65535,
  perMessageDeflate: false,
});

subscriber.subscribe('ws:broadcast');
subscriber.on('message', (channel, message) => {
  const to = channel === 'ws:broadcast' ? everybody : devices.get(channel);
  if (to) for (const socket of to) socket.send(message);
});

server.on('connection', async (socket, request) => {
  let claims;
  try {
    claims = jwt.verify(new URL(request.url, 'http://localhost').searchParams.get('token'), secret, {
      algorithms: ['HS256'],
    });
  } catch {
    socket.close(4001, 'authentication failed');
    return;
  }
  const channel = `ws:user:${claims.sub}`;
  let own = devices.get(channel);
  if (!own) devices.set(channel, (own = new Set()));
  own.add(socket);
  everybody.add(socket);
  socket.on('error', () => {});
  socket.on('close', () => {
    everybody.delete(socket);
    own.delete(socket);
    if (own.size === 0 && devices.get(channel) === own) {
      devices.delete(channel);
      subscriber.unsubscribe(channel);
    }
  });
  await subscriber.subscribe(channel);
  socket.send(JSON.stringify({ type: 'FULL_SYNC', user_id: claims.sub, payload: {} }));
});
