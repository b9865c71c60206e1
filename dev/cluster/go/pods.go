package main

import (
	"context"
	"fmt"
	"os"
	"time"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
	"k8s.io/cri-client/pkg"
	"k8s.io/klog/v2"
)

// stopPods ends every pod of a container runtime the way the kubelet does, so
// that shims, mounts and network interfaces go with them. "dev/cluster down"
// calls it after the kubelet has stopped, as "k8s stop-pods unix:///SOCKET".
func stopPods() error {
	if len(os.Args) != 2 {
		return fmt.Errorf("expected one argument, the runtime's address like unix:///run/containerd.sock, got %d", len(os.Args)-1)
	}
	ctx := context.Background()
	logger := klog.Background()
	runtime, err := cri.NewRemoteRuntimeService(os.Args[1], 30*time.Second, nil, &logger)
	if err != nil {
		return err
	}
	sandboxes, err := runtime.ListPodSandbox(ctx, nil)
	if err != nil {
		return err
	}
	for _, sandbox := range sandboxes {
		if err := stopPod(ctx, runtime, sandbox.Id); err != nil {
			return fmt.Errorf("pod %s/%s: %w", sandbox.Metadata.Namespace, sandbox.Metadata.Name, err)
		}
	}
	return nil
}

func stopPod(ctx context.Context, runtime interface {
	StopPodSandbox(context.Context, string) error
	RemovePodSandbox(context.Context, string) error
	ListContainers(context.Context, *runtimeapi.ContainerFilter) ([]*runtimeapi.Container, error)
	StopContainer(context.Context, string, int64) error
}, id string) error {
	containers, err := runtime.ListContainers(ctx, &runtimeapi.ContainerFilter{PodSandboxId: id})
	if err != nil {
		return err
	}
	for _, container := range containers {
		// A short grace: the state that matters is in the API server, and the
		// kubelet starts the pod anew at the next "up".
		if err := runtime.StopContainer(ctx, container.Id, 2); err != nil {
			return err
		}
	}
	if err := runtime.StopPodSandbox(ctx, id); err != nil {
		return err
	}
	return runtime.RemovePodSandbox(ctx, id)
}
