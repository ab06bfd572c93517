{{/* Name of everything that belongs to the node agent: "pilotfish-node" for a release "pilotfish". */}}
{{- define "pilotfish.nodeName" -}}
{{ printf "%s-node" .Release.Name | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "pilotfish.priorityClass" -}}
{{ .Values.node.priorityClass.name | default (include "pilotfish.nodeName" .) }}
{{- end }}

{{- define "pilotfish.nodeImage" -}}
{{ .Values.node.image.repository }}:{{ .Values.node.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What selects the node agent's pods; it may not change as long as the release lives. */}}
{{- define "pilotfish.nodeSelectorLabels" -}}
app.kubernetes.io/name: pilotfish
app.kubernetes.io/component: node
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "pilotfish.commonLabels" -}}
app.kubernetes.io/part-of: pilotfish
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}
