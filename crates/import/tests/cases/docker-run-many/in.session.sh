# a readme's lines
docker pull redis
docker network create net1 && docker run -dit --name=cache --network net1 redis:7 redis-server --appendonly yes
sudo docker run --rm -it --network host --privileged=false alpine sh -c 'echo "$HOSTNAME"; sleep 1'
podman run -P -h box --tmpfs /run:size=64k --security-opt seccomp=unconfined quay.io/acme/tool@sha256:0123
