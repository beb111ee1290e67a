// Joins this node to the others. A name that is taken is reported as a fault of the settings.

import { NodeIdTaken, Nodes, type NodesOptions } from '../nodes/nodes.ts';
import { RealtimeError } from '../protocol/realtime-error.ts';
import type { CloseStack } from './close-stack.ts';
import type { Logger } from './logger.ts';
import { patientStep } from './patient-step.ts';
import { SettingsError, type Settings } from '../settings/settings.ts';

export interface JoinParts extends Omit<NodesOptions, 'nodeId' | 'named' | 'log'> {
  readonly settings: Pick<Settings, 'nodeId' | 'nodeIdGiven'>;
  readonly log: Pick<Logger, 'warn'>;
  readonly closing: Pick<CloseStack, 'add'>;
}

/** @throws SettingsError when another node of the cluster runs under this one's NODE_ID. */
export async function joinNodes({ settings, log, closing, ...parts }: JoinParts): Promise<Nodes> {
  const nodes = new Nodes({
    ...parts,
    nodeId: settings.nodeId,
    named: settings.nodeIdGiven,
    log: (message, details) => log.warn(details, message),
  });
  closing.add('nodes', () => nodes.close());
  try {
    await patientStep('the other nodes', () => nodes.start(), { log, clock: parts.clock, mayPass: isUnavailable });
  } catch (error) {
    if (!(error instanceof NodeIdTaken)) throw error;
    const fault = `NODE_ID: "${settings.nodeId}" is the name of another node that is running; give each node its own`;
    throw new SettingsError([fault]);
  }
  return nodes;
}

/** The sync layer was there a moment ago. Every adapter says so, whatever its driver says. */
function isUnavailable(error: unknown): boolean {
  return error instanceof RealtimeError && error.code === 'unavailable';
}
