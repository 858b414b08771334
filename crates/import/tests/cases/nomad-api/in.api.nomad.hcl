variable "version" {
  default = "1.9"
}

variable "secret_sauce" {
  type = string
}

job "api" {
  datacenters = ["dc1"]
  type        = "service"
  priority    = 70

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  group "web" {
    count = 3

    constraint {
      distinct_hosts = true
    }

    affinity {
      attribute = "${meta.disk}"
      value     = "ssd"
      weight    = 80
    }

    network {
      mode = "bridge"
      port "http" {
        to     = 8080
        static = 80
      }
      port "metrics" {}
    }

    service {
      name     = "api"
      port     = "http"
      provider = "nomad"
      tags     = ["v1"]
      check {
        type     = "http"
        path     = "/healthz"
        interval = "10s"
        timeout  = "2s"
      }
    }

    restart {
      attempts = 3
      interval = "5m"
      mode     = "delay"
    }

    update {
      max_parallel = 1
    }

    task "server" {
      driver = "docker"

      config {
        image   = "acme/api:${var.version}"
        command = "/bin/api"
        args    = ["--port", "${NOMAD_PORT_http}", "--sauce", var.secret_sauce]
        ports   = ["http"]
        volumes = ["data:/data", "local/api.toml:/etc/api.toml"]
        auth {
          username = "u"
          password = "swordfish"
        }
      }

      env {
        ADDR      = "0.0.0.0:${NOMAD_PORT_http}"
        API_TOKEN = "swordfish"
        NODE      = "${attr.unique.hostname}"
      }

      template {
        data        = "title = \"api\"\n"
        destination = "local/api.toml"
      }

      template {
        data        = "{{ key \"x\" }}"
        destination = "secrets/x"
      }

      template {
        data = <<EOF
MODE=fast
DB_PASSWORD=swordfish
EOF
        destination = "local/env"
        env         = true
      }

      resources {
        cpu    = 500
        memory = 300
      }

      kill_timeout = "20s"
      kill_signal  = "SIGINT"
      unheard_of   = [1, 2]
    }
  }
}
