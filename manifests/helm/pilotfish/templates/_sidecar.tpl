{{/*
The sidecar, for the pod templates of other charts. It says the same as sidecar/src/inject/sidecar.yaml.

    # Chart.yaml
    dependencies:
      - name: pilotfish
        version: 0.1.0
        repository: file://../pilotfish
    # values.yaml: nothing of pilotfish is installed beside it
    pilotfish:
      node:
        enabled: false
    # a pod's spec
    shareProcessNamespace: true
    initContainers:
      {{- include "pilotfish.sidecar" (dict "image" "REGISTRY/pilotfish:0.1.0") | nindent 2 }}
    volumes:
      {{- include "pilotfish.sidecarVolume" . | nindent 2 }}

Keys of the dictionary, none of them needed: `image`; `env`, a list of further variables; `resources`.
*/}}
{{- define "pilotfish.sidecar" -}}
- name: pilotfish
  image: {{ .image | default "pilotfish:0.1.0" }}
  # A native sidecar (Kubernetes 1.29): it runs before the pod's containers start, and does not keep a Job from ending.
  restartPolicy: Always
  args: [sidecar, --fail-open]
  env:
    - name: PILOTFISH_POD_NAME
      valueFrom:
        fieldRef:
          fieldPath: metadata.name
    - name: PILOTFISH_POD_NAMESPACE
      valueFrom:
        fieldRef:
          fieldPath: metadata.namespace
    - name: PILOTFISH_POD_UID
      valueFrom:
        fieldRef:
          fieldPath: metadata.uid
    - name: NODE_NAME
      valueFrom:
        fieldRef:
          fieldPath: spec.nodeName
    - name: PILOTFISH_ANNOTATIONS_FILE
      value: /podinfo/annotations
    - name: PILOTFISH_LABELS_FILE
      value: /podinfo/labels
    {{- with .env }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  ports:
    - name: pilotfish
      containerPort: 9464
      protocol: TCP
  # The pod's containers start when everything that runs in the pod by then is observed.
  startupProbe:
    httpGet:
      path: /readyz
      port: pilotfish
    periodSeconds: 1
    failureThreshold: 30
  {{- with .resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- else }}
  resources:
    requests:
      cpu: 10m
      memory: 48Mi
    limits:
      memory: 128Mi
  {{- end }}
  securityContext:
    runAsUser: 65532
    runAsGroup: 65532
    runAsNonRoot: true
    # Kubernetes gives another user than root no ambient capabilities; the binary in the image has these three as file
    # capabilities. containerd, docker and podman hand them over with `false` as well (tried); CRI-O is untried.
    allowPrivilegeEscalation: true
    readOnlyRootFilesystem: true
    capabilities:
      drop: [ALL]
      add: [BPF, PERFMON, SYS_PTRACE]
    seccompProfile:
      type: RuntimeDefault
  volumeMounts:
    - name: pilotfish-podinfo
      mountPath: /podinfo
      readOnly: true
{{- end }}

{{- define "pilotfish.sidecarVolume" -}}
- name: pilotfish-podinfo
  downwardAPI:
    items:
      - path: annotations
        fieldRef:
          fieldPath: metadata.annotations
      - path: labels
        fieldRef:
          fieldPath: metadata.labels
{{- end }}
