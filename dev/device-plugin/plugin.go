package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	pluginapi "k8s.io/kubelet/pkg/apis/deviceplugin/v1beta1"
)

// devicesVariable holds the numbers of the devices that a container was given.
// Its name says that nothing real is behind them.
const devicesVariable = "XRAY_STANDIN_IPUS"

type plugin struct {
	pluginapi.UnimplementedDevicePluginServer
	resource   string
	count      int
	registered atomic.Bool

	lock    sync.Mutex
	ill     map[int]bool
	changed chan struct{} // closed, and made anew, when a device falls ill or recovers
}

func newPlugin(resource string, count int) *plugin {
	return &plugin{resource: resource, count: count, ill: map[int]bool{}, changed: make(chan struct{})}
}

// setHealth is what makes a stand-in fall ill, or recover; a real plugin would
// ask its driver.
func (p *plugin) setHealth(id, health string) error {
	numbers, err := p.sorted([]string{id})
	if err != nil {
		return err
	}
	if health != pluginapi.Healthy && health != pluginapi.Unhealthy {
		return fmt.Errorf("health %q: expected %s or %s", health, pluginapi.Healthy, pluginapi.Unhealthy)
	}
	number, _ := strconv.Atoi(numbers[0])
	p.lock.Lock()
	defer p.lock.Unlock()
	p.ill[number] = health == pluginapi.Unhealthy
	close(p.changed)
	p.changed = make(chan struct{})
	return nil
}

// devices are those of now, and what is closed when they are others.
func (p *plugin) devices() ([]*pluginapi.Device, <-chan struct{}) {
	p.lock.Lock()
	defer p.lock.Unlock()
	devices := make([]*pluginapi.Device, p.count)
	for number := range devices {
		health := pluginapi.Healthy
		if p.ill[number] {
			health = pluginapi.Unhealthy
		}
		devices[number] = &pluginapi.Device{ID: strconv.Itoa(number), Health: health}
	}
	return devices, p.changed
}

func (p *plugin) GetDevicePluginOptions(context.Context, *pluginapi.Empty) (*pluginapi.DevicePluginOptions, error) {
	return &pluginapi.DevicePluginOptions{}, nil
}

// ListAndWatch tells the devices, and again whenever the health of one changes,
// for as long as the kubelet wants it.
func (p *plugin) ListAndWatch(_ *pluginapi.Empty, stream pluginapi.DevicePlugin_ListAndWatchServer) error {
	for {
		devices, changed := p.devices()
		if err := stream.Send(&pluginapi.ListAndWatchResponse{Devices: devices}); err != nil {
			return err
		}
		select {
		case <-stream.Context().Done():
			return nil
		case <-changed:
		}
	}
}

func (p *plugin) Allocate(_ context.Context, request *pluginapi.AllocateRequest) (*pluginapi.AllocateResponse, error) {
	response := &pluginapi.AllocateResponse{}
	for _, container := range request.ContainerRequests {
		numbers, err := p.sorted(container.DevicesIds)
		if err != nil {
			return nil, err
		}
		response.ContainerResponses = append(response.ContainerResponses, &pluginapi.ContainerAllocateResponse{
			Envs: map[string]string{devicesVariable: strings.Join(numbers, ",")},
		})
	}
	return response, nil
}

func (p *plugin) sorted(ids []string) ([]string, error) {
	numbers := make([]int, 0, len(ids))
	for _, id := range ids {
		number, err := strconv.Atoi(id)
		if err != nil || number < 0 || number >= p.count {
			return nil, fmt.Errorf("device %q: expected a number below %d", id, p.count)
		}
		numbers = append(numbers, number)
	}
	slices.Sort(numbers)
	texts := make([]string, len(numbers))
	for i, number := range numbers {
		texts[i] = strconv.Itoa(number)
	}
	return texts, nil
}

// registration is one life of our socket beside one life of the kubelet's.
type registration struct {
	server       *grpc.Server
	own, kubelet string
	kubeletWas   os.FileInfo
}

// holds reports whether our socket is still there and the kubelet's is still
// the one that we registered with.
func (r *registration) holds() bool {
	if _, err := os.Stat(r.own); err != nil {
		return false
	}
	now, err := os.Stat(r.kubelet)
	return err == nil && os.SameFile(now, r.kubeletWas) && now.ModTime().Equal(r.kubeletWas.ModTime())
}

func serveAndRegister(ctx context.Context, p *plugin, own, kubelet string) (*registration, error) {
	kubeletWas, err := os.Stat(kubelet)
	if err != nil {
		return nil, fmt.Errorf("the kubelet's socket: %w", err)
	}
	if err := os.Remove(own); err != nil && !os.IsNotExist(err) {
		return nil, err
	}
	listener, err := net.Listen("unix", own)
	if err != nil {
		return nil, err
	}
	server := grpc.NewServer()
	pluginapi.RegisterDevicePluginServer(server, p)
	go server.Serve(listener)
	if err := register(ctx, p, own, kubelet); err != nil {
		server.Stop()
		return nil, err
	}
	return &registration{server: server, own: own, kubelet: kubelet, kubeletWas: kubeletWas}, nil
}

func register(ctx context.Context, p *plugin, own, kubelet string) error {
	connection, err := grpc.NewClient("unix://"+kubelet, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer connection.Close()
	limited, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	_, err = pluginapi.NewRegistrationClient(connection).Register(limited, &pluginapi.RegisterRequest{
		Version:      pluginapi.Version,
		Endpoint:     own[strings.LastIndex(own, "/")+1:],
		ResourceName: p.resource,
		Options:      &pluginapi.DevicePluginOptions{},
	})
	return err
}
