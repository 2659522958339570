{{- /* The port of an http(s) URL. */ -}}
{{- define "paperminder-ota.urlPort" -}}
{{- $host := (urlParse .).host }}
{{- if regexMatch ":[0-9]+$" $host }}{{ regexFind "[0-9]+$" $host }}{{ else }}{{ ternary 443 80 (hasPrefix "https:" .) }}{{ end }}
{{- end }}

{{- /* What servers and jobs alike reach: names, the database, object storage and what else has a URL among the values. */ -}}
{{- define "paperminder-ota.egress" -}}
{{- $ports := list 443 }}
{{- /* The last three are what `paperminder-ota doctor` in a pod tries as printers do. */ -}}
{{- $base := include "paperminder-ota.baseUrl" . }}
{{- range list .Values.s3.endpoint .Values.oidc.issuer .Values.tracing.endpoint .Values.s3.publicEndpoint .Values.delivery.cdn.baseUrl $base }}
{{- if . }}{{ $ports = append $ports (include "paperminder-ota.urlPort" . | int) }}{{ end }}
{{- end }}
{{- /* Policies see a pod's port, not its Service's. */ -}}
{{- if contains (printf "//%s.%s.svc" (include "paperminder-ota.fullname" .) .Release.Namespace) $base }}{{ $ports = append $ports 8000 }}{{ end }}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
- ports:
    - port: {{ .Values.database.port }}
      protocol: TCP
  {{- with .Values.networkPolicy.databaseTo }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
- ports:
    {{- range $ports | uniq }}
    - port: {{ . }}
      protocol: TCP
    {{- end }}
# EKS pod identity: its agent on the node.
- to:
    - ipBlock:
        cidr: 169.254.170.23/32
    - ipBlock:
        cidr: fd00:ec2::23/128
  ports:
    - port: 80
      protocol: TCP
{{- end }}
