# The server as an image: the executable of `bun run build` on Debian's C library, without a shell, as a user without
# rights. It needs DATABASE_URL; the embedded PostgreSQL is not inside.
#
#   docker build -t sobranie .
#   docker run -p 3000:3000 -e DATABASE_URL=postgres://… -e JWT_SECRET=… sobranie
#
# BUILDER and BASE name other images, such as those of a registry of your own.
ARG BUILDER=docker.io/oven/bun:1.4.5
ARG BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILDER} AS build
WORKDIR /build
COPY . .
RUN bun install --frozen-lockfile --production && bun scripts/build.ts --outdir=/out

FROM ${BASE}
COPY --from=build /out/sobranie /usr/local/bin/sobranie
# A rules file that is mounted here takes the place of the one inside.
WORKDIR /etc/sobranie
ENV NODE_ENV=production PORT=3000
# By its number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 3000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s CMD ["/usr/local/bin/sobranie", "health"]
ENTRYPOINT ["/usr/local/bin/sobranie"]
CMD ["start"]
