# Both images for a release: docker buildx bake. scripts/release sets the variables; `make image` builds for this machine only.
variable "REGISTRY" { default = "" }
variable "VERSION" { default = "checkout" }
variable "REVISION" { default = "unknown" }
variable "CREATED" { default = "1970-01-01T00:00:00Z" }
# With its digest: name:tag@sha256:…
variable "PYTHON_IMAGE" { default = "python:3.11-slim-bookworm" }

group "default" {
  targets = ["operator", "worker"]
}

target "common" {
  context = "."
  args = {
    PYTHON_IMAGE = PYTHON_IMAGE
    VERSION      = VERSION
    REVISION     = REVISION
    CREATED      = CREATED
  }
  # What is in it, and how it was made, beside the image in the registry.
  attest = ["type=sbom", "type=provenance,mode=max"]
}

# All pinned wheels are there for both.
target "operator" {
  inherits   = ["common"]
  dockerfile = "Dockerfile"
  platforms  = ["linux/amd64", "linux/arm64"]
  tags       = ["${REGISTRY}/drivetrain-operator:${VERSION}"]
}

# torch's CUDA libraries are pinned for x86-64.
target "worker" {
  inherits   = ["common"]
  dockerfile = "worker-image/Dockerfile"
  platforms  = ["linux/amd64"]
  tags       = ["${REGISTRY}/drivetrain-worker:${VERSION}"]
}
