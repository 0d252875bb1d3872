{{- define "mcpbridge.name" -}}
{{- .Release.Name | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "mcpbridge.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "mcpbridge.labels" -}}
{{ include "mcpbridge.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end -}}

{{/* The Service under which the replicas find each other. */}}
{{- define "mcpbridge.peers" -}}
{{- printf "%s-peers" (include "mcpbridge.name" . | trunc 57 | trimSuffix "-") -}}
{{- end -}}

{{/* The images of mcpbridge that the workflow of a release pushes, or those that the values name. */}}
{{- define "mcpbridge.image" -}}
{{- .Values.bridge.image | default (printf "%s:%s-slim" .Values.bridge.repository (.Values.bridge.version | default .Chart.AppVersion)) -}}
{{- end -}}

{{- define "mcpbridge.treeImage" -}}
{{- .Values.bridge.treeImage | default (printf "%s:%s-tree" .Values.bridge.repository (.Values.bridge.version | default .Chart.AppVersion)) -}}
{{- end -}}

{{- define "mcpbridge.confined" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
{{- end -}}

{{/* Settings of mcpbridge that the values ask for, as a map of flags to values in JSON. */}}
{{- define "mcpbridge.settings" -}}
{{- $settings := dict "admin-port" 9090 "path" .Values.bridge.path -}}
{{- with .Values.auth -}}
{{- if .tokenSecret.name -}}{{- $_ := set $settings "auth-token-file" "/run/secrets/mcpbridge/tokens" -}}{{- end -}}
{{- if .oauth.issuer -}}{{- $_ := set $settings "oauth-issuer" .oauth.issuer -}}{{- end -}}
{{- if .oauth.audience -}}{{- $_ := set $settings "oauth-audience" .oauth.audience -}}{{- end -}}
{{- if .required -}}{{- $_ := set $settings "require-auth" true -}}{{- end -}}
{{- end -}}
{{- if .Values.ingress.enabled -}}{{- $_ := set $settings "allowed-host" .Values.ingress.host -}}{{- end -}}
{{- if .Values.peers.enabled -}}{{- $_ := set $settings "peers" (printf "%s:%v" (include "mcpbridge.peers" .) .Values.peers.port) -}}{{- end -}}
{{- merge (deepCopy .Values.bridge.settings) $settings | toJson -}}
{{- end -}}

{{/* Ports, probes and variables of the container that serves HTTP. */}}
{{- define "mcpbridge.serves" -}}
ports:
  - name: mcp
    containerPort: 8000
  - name: admin
    containerPort: 9090
  {{- if .Values.peers.enabled }}
  - name: peer
    containerPort: {{ .Values.peers.port }}
  {{- end }}
env:
  {{- range $flag, $value := include "mcpbridge.settings" . | fromJson }}
  - name: MCPBRIDGE_{{ $flag | upper | replace "-" "_" }}
    value: {{ $value | toString | quote }}
  {{- end }}
  - name: TERMINATION_GRACE_PERIOD_SECONDS
    value: {{ .Values.terminationGracePeriodSeconds | quote }}
  {{- if .Values.peers.enabled }}
  - name: MCPBRIDGE_STATE_KEY_FILE
    value: /run/secrets/mcpbridge-state/key
  - name: POD_IP
    valueFrom:
      fieldRef:
        fieldPath: status.podIP
  {{- end }}
  {{- with .Values.bridge.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if ne .Values.shape "sidecar" }}
  {{- with .Values.server.env }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- end }}
# Two minutes: the server's --start-timeout of one, and one more attempt.
startupProbe:
  httpGet: {path: /startupz, port: admin}
  periodSeconds: 2
  failureThreshold: 60
readinessProbe:
  httpGet: {path: /readyz, port: admin}
  periodSeconds: 5
  failureThreshold: 2
# Only of mcpbridge itself: a server that fails is started again without its pod.
livenessProbe:
  httpGet: {path: /livez, port: admin}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 3
securityContext:
  {{- include "mcpbridge.confined" . | nindent 2 }}
{{- end -}}

{{- define "mcpbridge.secretMounts" -}}
{{- if .Values.auth.tokenSecret.name }}
- name: tokens
  mountPath: /run/secrets/mcpbridge
  readOnly: true
{{- end }}
{{- if .Values.peers.enabled }}
- name: state-key
  mountPath: /run/secrets/mcpbridge-state
  readOnly: true
{{- end }}
{{- with .Values.bridge.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "mcpbridge.writableMounts" -}}
{{- range $index, $folder := .Values.writableFolders }}
- name: writable-{{ $index }}
  mountPath: {{ $folder }}
{{- end }}
{{- with .Values.server.volumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}
