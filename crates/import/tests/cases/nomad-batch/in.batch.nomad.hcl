job "report" {
  type        = "batch"
  datacenters = ["dc1"]
  periodic {
    crons            = ["0 6 * * * *", "0 18 * * * *"]
    time_zone        = "Europe/Rome"
    prohibit_overlap = true
  }
  group "report" {
    count = 3
    restart {
      attempts = 5
      interval = "10m"
      mode     = "fail"
    }
    task "report" {
      driver = "exec"
      config {
        command = "/usr/bin/report"
      }
      resources {
        cpu        = 200
        memory     = 100
        memory_max = 300
      }
    }
  }
}

job "poll" {
  type = "batch"
  periodic {
    cron             = "0 */10 * * * * *"
    prohibit_overlap = false
  }
  group "poll" {
    task "poll" {
      driver = "exec"
      config {
        command = "/usr/bin/poll"
      }
      restart {
        attempts = 2
        mode     = "delay"
      }
    }
  }
}

job "seconds" {
  type = "batch"
  periodic {
    cron = "*/15 * * * * * *"
  }
  group "seconds" {
    task "seconds" {
      driver = "exec"
      config {
        command = "/usr/bin/true"
      }
    }
  }
}

job "asked" {
  type = "batch"
  parameterized {
    payload = "required"
  }
  task "asked" {
    driver = "exec"
    config {
      command = "/usr/bin/asked"
    }
    dispatch_payload {
      file = "in"
    }
  }
}

job "everywhere" {
  type = "sysbatch"
  group "everywhere" {
    task "everywhere" {
      driver = "exec"
      config {
        command = "/usr/bin/clean"
      }
    }
  }
}

job "off" {
  type = "batch"
  periodic {
    cron    = "@daily"
    enabled = false
  }
  group "off" {
    task "off" {
      driver = "exec"
      config {
        command = "/usr/bin/off"
      }
    }
  }
}

job "web" {
  update {
    max_parallel      = 2
    min_healthy_time  = "15s"
    healthy_deadline  = "3m"
    progress_deadline = "8m"
    health_check      = "checks"
    auto_revert       = false
    stagger           = "30s"
  }
  dynamic "group" {
    for_each = ["a", "b"]
  }
  group "web" {
    count = 4
    update {
      canary       = 1
      auto_promote = true
    }
    task "web" {
      driver = "docker"
      config {
        image   = "acme/web"
        command = "/web"
        mounts = [
          {
            type     = "bind"
            source   = "local/web.conf"
            target   = "/etc/web.conf"
            readonly = true
          },
          {
            type   = "tmpfs"
            target = "/scratch"
            tmpfs_options = {
              size = 1000000
            }
          },
          {
            type   = "volume"
            source = "pages"
            target = "/pages"
          }
        ]
        volumes = ["/:/host:ro,rslave"]
      }
    }
  }
}
