// A call in a browser: a camera, and a channel for texts, straight from page to page. The realtime server only says who is
// in the room, and carries what peers must tell each other before they are connected: publications with `to`.

import { Sobranie, type Member } from '@sobranie/client';

interface Signal {
  readonly description?: RTCSessionDescription | null;
  readonly candidate?: RTCIceCandidate | null;
}

interface Peer {
  readonly connection: RTCPeerConnection;
  readonly texts: RTCDataChannel;
  readonly video: HTMLVideoElement;
  isOffering: boolean;
}

const parameters = new URLSearchParams(location.search);
const room = parameters.get('room') ?? 'lobby';
const me = parameters.get('name') ?? 'nobody';
const ask = async <Answer>(path: string): Promise<Answer> =>
  (await fetch(path, { method: 'POST' })).json() as Promise<Answer>;
const element = <Kind extends Element = HTMLElement>(selector: string): Kind => {
  const found = document.querySelector<Kind>(selector);
  if (found === null) throw new Error(`the page has no ${selector}`);
  return found;
};

const client = new Sobranie<{ [call: `call:${string}`]: Signal }>(
  parameters.get('server') ?? document.body.dataset['sobranie'] ?? location.origin,
  { token: () => ask<string>('/token') },
);
const call = client.channel(`call:${room}`);
const [iceServers, camera] = await Promise.all([
  ask<RTCIceServer[]>('/ice'),
  navigator.mediaDevices.getUserMedia({ video: { width: 320 }, audio: parameters.has('audio') }),
]);
element<HTMLVideoElement>('#own').srcObject = camera;

/** By the connection under which the realtime server knows them. */
const peers = new Map<string, Peer>();

const failed = (error: unknown): void => void (document.body.dataset['error'] = String(error));
const tell = (to: string, signal: Signal): void => void call.publish(signal, { to }).catch(failed);

function peerOf(id: string): Peer {
  const known = peers.get(id);
  if (known !== undefined) return known;
  const connection = new RTCPeerConnection({ iceServers });
  const video = Object.assign(document.createElement('video'), { autoplay: true, muted: true, playsInline: true });
  // Both sides make it under the same number, so neither waits for the other's.
  const texts = connection.createDataChannel('texts', { negotiated: true, id: 0 });
  const peer: Peer = { connection, texts, video, isOffering: false };
  peers.set(id, peer);
  element('#peers').append(video);
  for (const track of camera.getTracks()) connection.addTrack(track, camera);
  connection.ontrack = ({ streams: [stream] }) => (video.srcObject = stream ?? null);
  connection.onicecandidate = ({ candidate }) => tell(id, { candidate });
  connection.onconnectionstatechange = () => (video.dataset['state'] = connection.connectionState);
  connection.onnegotiationneeded = async () => {
    peer.isOffering = true;
    try {
      await connection.setLocalDescription();
      tell(id, { description: connection.localDescription });
    } finally {
      peer.isOffering = false;
    }
  };
  texts.onmessage = ({ data }) => show(String(data));
  return peer;
}

function leave(id: string): void {
  peers.get(id)?.connection.close();
  peers.get(id)?.video.remove();
  peers.delete(id);
}

/** One of two that call each other at once gives way: the one whose name comes first. */
async function take(id: string, from: string, { description, candidate }: Signal): Promise<void> {
  const peer = peerOf(id);
  const { connection } = peer;
  if (description) {
    const collides = description.type === 'offer' && (peer.isOffering || connection.signalingState !== 'stable');
    if (collides && me > from) return;
    await connection.setRemoteDescription(description);
    if (description.type !== 'offer') return;
    await connection.setLocalDescription();
    tell(id, { description: connection.localDescription });
  } else if (candidate && connection.remoteDescription) await connection.addIceCandidate(candidate);
}

// One after another: a candidate must not overtake the description that it belongs to.
let taking = Promise.resolve();
call.subscribe(({ data, from, direct }) => {
  if (direct !== true || !from?.user) return;
  const { connection, user } = from;
  taking = taking.then(() => take(connection, user, data)).catch(failed);
});

call.presence.enter();
call.presence.subscribe((members: readonly Member[]) => {
  const others = members.filter(({ user }) => user !== null && user !== me);
  // The one whose name comes first calls; the other one answers.
  for (const { connection, user } of others) if (me < (user ?? '')) peerOf(connection);
  const here = new Set(others.map(({ connection }) => connection));
  if (members.length > 0) for (const id of peers.keys()) if (!here.has(id)) leave(id);
});

function show(text: string): void {
  const item = document.createElement('li');
  item.textContent = text;
  element('#texts').append(item);
}

element('form').addEventListener('submit', (event) => {
  event.preventDefault();
  const input = element<HTMLInputElement>('input');
  for (const { texts } of peers.values()) if (texts.readyState === 'open') texts.send(`${me}: ${input.value}`);
  show(`${me}: ${input.value}`);
  input.value = '';
});
