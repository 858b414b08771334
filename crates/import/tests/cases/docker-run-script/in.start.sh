#!/bin/sh
cd /srv && docker stop api 2> /dev/null
docker run -d --name api \
  -v "$(pwd)"/conf:/etc/api:ro -v $(pwd)/data:/data \ 
  -v d:\files:/files:ro \
  -p 9000:9000 acme/api serve --all > /dev/null 2>&1
docker build -t x - < Dockerfile
