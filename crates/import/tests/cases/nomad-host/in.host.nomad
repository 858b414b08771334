job "tools" {
  datacenters = ["east"]
  type        = "system"
  group "tools" {
    volume "logs" {
      type   = "host"
      source = "logs"
    }
    task "prepare" {
      lifecycle {
        hook = "prestart"
      }
      driver = "exec"
      config {
        command = "/usr/bin/true"
      }
    }
    task "exporter" {
      driver = "raw_exec"
      user   = "root"
      config {
        command = "/usr/local/bin/exporter"
        args    = ["--all"]
      }
      volume_mount {
        volume      = "logs"
        destination = "/logs"
        read_only   = true
      }
    }
    task "jvm" {
      driver = "java"
      config {
        jar_path    = "local/app.jar"
        jvm_options = ["-Xmx256m"]
      }
      resources {
        cores  = 2
        memory = 256
        memory_max = 512
      }
    }
    task "vm" {
      driver = "qemu"
      config {
        image_path = "vm.img"
      }
    }
  }
}

job "cleanup" {
  type = "batch"
  periodic {
    cron = "15 4 * * *"
  }
  group "cleanup" {
    task "cleanup" {
      driver = "exec"
      config {
        command = "/bin/sh"
        args    = ["-c", "rm -rf /tmp/old"]
      }
    }
  }
}
