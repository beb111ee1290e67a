// Preloaded into a server: a fault of the runtime, which cannot write to the subscribers of channels that begin with
// `broken:`. From outside nothing is known that makes a fan-out fail.

const serve = Bun.serve.bind(Bun);

const broken = (...args: Parameters<typeof Bun.serve>): ReturnType<typeof Bun.serve> => {
  const server = serve(...args);
  const publish = server.publish.bind(server);
  server.publish = (topic, ...rest) => {
    if (topic.startsWith('broken:')) throw new Error('a planted fault: nothing can be written');
    return publish(topic, ...rest);
  };
  return server;
};

Bun.serve = broken as typeof Bun.serve;
