"""What do a node's daemons read: containerd, its network plugins, the kubelet and kube-proxy?"""

import json
from pathlib import Path

from cluster.layout import CONTROL_PLANE, DNS_DOMAIN, POD_NETWORK, Node
from cluster.pki import Authority, Credential

PAUSE_IMAGE = "localhost/drivetrain-pause:1"
CNI_PLUGINS = Path("/usr/lib/cni")
# The kubelet would offer every node the whole machine; this is what it keeps back, so that a node's share is what its
# users may think it is. Processor time is not kept back: requests are promises, and the tests make small ones.
RESERVED_MEMORY = "1Gi"


def containerd() -> str:
    """config.toml, as containerd 1.6 and 1.7 read it."""
    # restrict_oom_score_adj: without CAP_SYS_RESOURCE every sandbox fails with "can't get final child's PID".
    return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE_IMAGE}"
  disable_apparmor = true
  restrict_oom_score_adj = true
  stream_server_port = "0"
[plugins."io.containerd.grpc.v1.cri".cni]
  bin_dir = "{CNI_PLUGINS}"
[plugins."io.containerd.grpc.v1.cri".containerd]
  discard_unpacked_layers = true
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
  SystemdCgroup = false
"""


def pod_network(node: Node) -> str:
    """The CNI conflist: one bridge a node. `enforcing` adds what enforces NetworkPolicies."""
    bridge = {
        "type": "bridge",
        "bridge": "cni0",
        "isGateway": True,
        "hairpinMode": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": str(node.pods)}]], "routes": [{"dst": "0.0.0.0/0"}]},
    }
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return json.dumps({"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}, indent=2)


def kubelet(node: Node, authority: Authority, serving: Credential, resolv_conf: Path) -> str:
    """The KubeletConfiguration."""
    return _document(
        "kubelet.config.k8s.io/v1beta1",
        "KubeletConfiguration",
        address=str(node.address),
        authentication={
            "x509": {"clientCAFile": str(authority.files.cert)},
            "webhook": {"enabled": True},
            "anonymous": {"enabled": False},
        },
        authorization={"mode": "Webhook"},
        tlsCertFile=str(serving.cert),
        tlsPrivateKeyFile=str(serving.key),
        cgroupDriver="cgroupfs",
        cgroupRoot=f"/{node.cgroup}",
        failCgroupV1=False,
        failSwapOn=False,
        enforceNodeAllocatable=[],
        systemReserved={"memory": RESERVED_MEMORY},
        containerRuntimeEndpoint="unix:///run/containerd/containerd.sock",
        volumePluginDir="/var/lib/kubelet/volume-plugins",
        clusterDNS=[str(CONTROL_PLANE)],
        clusterDomain=DNS_DOMAIN,
        resolvConf=str(resolv_conf),
        readOnlyPort=0,
        healthzPort=10248,
        nodeStatusUpdateFrequency="4s",
        nodeLeaseDurationSeconds=10,
        imageGCHighThresholdPercent=100,
        imageMinimumGCAge="24h",
        evictionHard={"memory.available": "100Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        maxPods=100,
    )


def kube_proxy(node: Node, credentials: Path) -> str:
    """The KubeProxyConfiguration: nftables, which needs no IPVS and leaves the kernel-wide conntrack limits alone."""
    return _document(
        "kubeproxy.config.k8s.io/v1alpha1",
        "KubeProxyConfiguration",
        mode="nftables",
        clientConnection={"kubeconfig": str(credentials)},
        clusterCIDR=str(POD_NETWORK),
        hostnameOverride=node.name,
        conntrack={"maxPerCore": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    )


def _document(api_version: str, kind: str, **fields: object) -> str:
    return json.dumps({"apiVersion": api_version, "kind": kind, **fields}, indent=2)
